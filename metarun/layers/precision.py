"""Which operations are computed in bfloat16 where `torch.autocast` is on, as `device.precision=bf16` asks, and which ones never are.

torch casts the arguments of its own products and convolutions. It knows no function of ours and casts no argument of an operation that such
a function calls in a derivative. bfloat16 has 8 bits of fraction: enough for the products of a network, too few for a statistic, for a
difference of nearly equal numbers, or for the solution of a linear system.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

HALF = (torch.bfloat16, torch.float16)


def as_autocast(tensor: Tensor) -> Tensor:
    """Return a tensor in the type that autocast gives to the arguments of a product; unchanged without autocast, and in float64.

    The cast is differentiable, so a parameter in float32 gets its gradient in float32.
    """
    device = tensor.device.type
    if tensor.dtype not in (torch.float32, *HALF) or not _casts(device):
        return tensor
    return tensor.to(torch.get_autocast_dtype(device))


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a tensor of half precision in float32, and any other tensor unchanged."""
    return tensor.float() if tensor.dtype in HALF else tensor


def full_precision(tensor: Tensor) -> AbstractContextManager[Any]:
    """Return a context in which the products of tensors beside this one are computed in their own type."""
    device = tensor.device.type
    return torch.autocast(device, enabled=False) if _casts(device) else nullcontext()


def _casts(device: str) -> bool:
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
