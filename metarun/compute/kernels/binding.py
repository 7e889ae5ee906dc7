"""The functions of the C files: the types of their arguments, and a call by name."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

from torch import Tensor

from metarun.compute.kernels import compiler


class Convolution(ctypes.Structure):
    """The struct `convolution` of `products.h`. in, out: channels of one group."""

    _fields_ = [
        (name, ctypes.c_int)
        for name in (
            *("images", "in", "out", "height", "width", "out_height", "out_width", "rows", "columns"),
            *("row_stride", "column_stride", "row_padding", "column_padding", "groups"),
        )
    ]


class Images(ctypes.Structure):
    """The struct `images` of `normalisation.c`."""

    _fields_ = [(name, ctypes.c_long) for name in ("images", "height", "width", "channels")]


SOURCES = ("convolution.c", "winograd.c", "normalisation.c")
_FUNCTIONS: dict[str, tuple[str, Any, int]] = {
    "forward": ("convolution.c", Convolution, 4),
    "input_gradient": ("convolution.c", Convolution, 3),
    "weight_gradient": ("convolution.c", Convolution, 3),
    "tiled_forward": ("winograd.c", Convolution, 4),
    "tiled_input_gradient": ("winograd.c", Convolution, 3),
    "tiled_weight_gradient": ("winograd.c", Convolution, 3),
    "column_statistics": ("normalisation.c", Images, 3),
    "normalise_and_rectify": ("normalisation.c", Images, 4),
    "sums_where_positive": ("normalisation.c", Images, 6),
    "spread_where_positive": ("normalisation.c", Images, 8),
    "normalise_and_pool": ("normalisation.c", Images, 5),
    "normalise_and_take_maxima": ("normalisation.c", Images, 4),
    "sums_at_maxima": ("normalisation.c", Images, 5),
    "spread_at_maxima": ("normalisation.c", Images, 7),
}
"""For each function its file, the struct that its first argument points to, and the number of pointers that follow."""


@functools.cache
def library(source: str) -> ctypes.CDLL:
    """Return the library of a C file of this package, compiled at the first call. Raises NoLibraryError where that fails."""
    loaded = compiler.load(Path(__file__).with_name(source))
    for name, (file, shape, pointers) in _FUNCTIONS.items():
        if file == source:
            getattr(loaded, name).argtypes = [ctypes.POINTER(shape), *[ctypes.c_void_p] * pointers]
    return loaded


def call(name: str, shape: ctypes.Structure, *tensors: Tensor | None) -> int:
    """Call a C function without the GIL. Return its status: 0, or 1 where a convolution found no memory.

    tensors: float32 or int64, one for each pointer, in the memory order that the C file says; None for a null pointer.
    """
    pointers = (None if tensor is None else tensor.data_ptr() for tensor in tensors)
    status: int = getattr(library(_FUNCTIONS[name][0]), name)(ctypes.byref(shape), *pointers)
    return status
