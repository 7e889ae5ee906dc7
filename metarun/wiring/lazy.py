"""Lazy layers of a user's module: their first pass, which gives them their shapes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from metarun.errors import UserError
from metarun.wiring.module_checks import unfit


def materialise(module: nn.Module, x: Tensor, name: str) -> None:
    """Give lazy layers their shapes by one pass of x; other buffers, and new running statistics, stay as they were.

    Raises UserError where the pass fails or leaves a layer out. name: of the module in messages.
    """
    lazy = _lazy_tensors(module)
    if not lazy:
        return
    before = {path: value.clone() for path, value in module.named_buffers() if path not in lazy}
    try:
        with torch.no_grad():
            module(x)
    except UserError:
        raise
    except Exception as error:
        raise unfit(x, name, error) from error
    if unused := _lazy_tensors(module):
        raise UserError(f"backbone {name} has the lazy layer '{unused[0].rpartition('.')[0]}', which its forward does not use; remove it.")
    module.load_state_dict(before, strict=False)
    for path, layer in module.named_modules():
        if f"{path}.running_mean".removeprefix(".") in lazy:
            layer.reset_running_stats()


def _lazy_tensors(module: nn.Module) -> list[str]:
    return [path for path, value in [*module.named_parameters(), *module.named_buffers()] if is_lazy(value)]
