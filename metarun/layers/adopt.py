"""Gives metarun's computation to the layers of a torch module, and leaves the layers themselves where they are.

A layer keeps its identity: the object, its parameters and buffers, its hooks, and each place that refers to it, such as a plain list, a
second name, or another block. Only the class of the object changes, to a subclass that computes the same in a way that torch can map over
tasks. A parametrization, such as weight norm, therefore stays in force too.
"""

from __future__ import annotations

from torch import nn

from metarun.layers.conv import Conv2d
from metarun.layers.norm import Norm, NormPass, computes_statistics, norm_kind
from metarun.layers.per_example import GroupNorm, InstanceNorm1d, InstanceNorm2d, InstanceNorm3d, LayerNorm
from metarun.layers.pool import MaxPool2d
from metarun.layers.recurrent import GRU, LSTM, RNN

KINDS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: Conv2d,
    nn.GroupNorm: GroupNorm,
    nn.GRU: GRU,
    nn.InstanceNorm1d: InstanceNorm1d,
    nn.InstanceNorm2d: InstanceNorm2d,
    nn.InstanceNorm3d: InstanceNorm3d,
    nn.LayerNorm: LayerNorm,
    nn.LSTM: LSTM,
    nn.MaxPool2d: MaxPool2d,
    nn.RNN: RNN,
}
"""The layers of torch that change their class, and the new class. A user's own subclass of such a layer stays as it is."""


def adopt_layers(module: nn.Module) -> list[Norm]:
    """Let metarun compute the layers of a module; return its normalisation layers, each once and in order, with their names.

    Batch normalisation changes in a user's subclass too: the subclass keeps its forward, and `super().forward` reaches metarun's
    computation. A batch normalisation in `eval` mode stays as it is, since it only reads its running statistics. A second call changes
    nothing.
    """
    norms = []
    for name, layer in module.named_modules():
        if type(layer) in KINDS:
            layer.__class__ = KINDS[type(layer)]
        elif computes_statistics(layer):
            layer.__class__ = norm_kind(type(layer))  # type: ignore[arg-type]
            layer.norm_pass = NormPass("own")
        if isinstance(layer, Norm):
            layer.norm_name = name
            norms.append(layer)
    return norms
