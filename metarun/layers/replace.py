"""Putting our own layers into the place of torch's."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def replace_layers(module: nn.Module, own: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """Return the module, with every layer in it replaced by what `own` makes of it; None leaves a layer, and looks into it."""
    if (layer := own(module)) is not None:
        return layer
    for name, child in module.named_children():
        setattr(module, name, replace_layers(child, own))
    return module
