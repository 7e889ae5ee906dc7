"""An optional network that embeds the inputs of an algorithm with networks of its own, for inputs that hold categories."""

from __future__ import annotations

from torch import Tensor

from metarun.layers.norm import NormPass
from metarun.network import Network
from metarun.types import Params, part_of, prefixed

INPUTS = "inputs."
"""Prefix of the parameters of the network."""


def inputs_init(embed: Network | None) -> Params:
    """Return the initial parameters of the network; none without a network."""
    return {} if embed is None else prefixed(INPUTS, embed.init()[0])


def embedded(embed: Network | None, params: Params, x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the vectors of inputs (B, ...); the inputs themselves without a network. params: of the algorithm."""
    return x if embed is None else embed.forward(part_of(params, INPUTS), x, NormPass("own", mask))


def embedding_params(embed: Network | None, params: Params) -> Params:
    """Return the parameters of the network under their names in the algorithm."""
    return {} if embed is None else prefixed(INPUTS, part_of(params, INPUTS))
