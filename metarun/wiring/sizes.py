"""The size of the network that a checkpoint's config describes, before the network gets any memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from metarun.errors import UserError, first_line
from metarun.wiring.around import divided
from metarun.wiring.fitting import annotations_of, fit_keys
from metarun.wiring.instantiate import TARGET, instantiate, locate
from metarun.wiring.places import groups
from metarun.wiring.pretrained import BORROWED

SMALL = 50_000_000
"""Parameters that a network may have in any case, 200 MB. Some algorithms store no network."""
LAYER = 32
"""Most parameters for a number in a backbone's config, in units of the square of the largest number; `resnet12` has 28."""


def check_network(config: Mapping[str, Any], params: Mapping[str, Tensor]) -> None:
    """Raise UserError where the config describes a much larger network than the one whose parameters the checkpoint holds.

    config: of the checkpoint. params: its parameters, learned and frozen. A backbone of a trusted package is not checked.
    """
    if config["backbone"].get(TARGET) not in groups()["backbone"].targets:
        return
    node, _ = divided(config["backbone"])
    shape = node.pop("input_shape", None) or config.get("input_shape") or [1]
    node = fit_keys({**node, "input_shape": shape}, annotations_of(locate(node[TARGET])), "backbone.")  # 1e6 is a whole number too
    shape = node.pop("input_shape")
    if node[TARGET] not in BORROWED and bound(node, shape) <= SMALL:
        return
    held = sum(value.numel() for value in params.values())
    try:
        with torch.device("meta"):  # shapes without memory
            network = instantiate({**node, "input_shape": shape}, name="backbone")
    except (RuntimeError, UserError) as error:
        if node[TARGET] in BORROWED:  # not every model of timm can be made without memory
            return
        raise UserError(f"the config in the checkpoint describes a network that nobody can make ({first_line(error)}).") from error
    size = sum(value.numel() for value in network.parameters())
    if size > max(held, SMALL):
        raise UserError(
            f"the config in the checkpoint describes a network of {size:,} parameters, and the checkpoint holds {held:,}; "
            "take another checkpoint."
        )


def bound(node: Mapping[str, Any], shape: Sequence[int]) -> int:
    """Return a number above the parameters of a backbone of metarun, found from the numbers in its config alone."""
    numbers = list(_numbers(node))
    largest = max(map(abs, numbers), default=0)
    return LAYER * len(numbers) * largest**2 + math.prod(shape) * largest


def _numbers(value: Any) -> Iterator[int]:
    """Yield the whole numbers in a node."""
    if isinstance(value, int):
        yield value
    if isinstance(value, (list, tuple, Mapping)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _numbers(item)
