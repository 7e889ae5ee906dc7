"""Replaces layers of torch by metarun's."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def replace_layers(module: nn.Module, replacement: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """Return the module with each layer replaced by `replacement(layer)`; None keeps a layer and looks into its children."""
    if (layer := replacement(module)) is not None:
        return layer
    for name, child in module.named_children():
        setattr(module, name, replace_layers(child, replacement))
    return module
