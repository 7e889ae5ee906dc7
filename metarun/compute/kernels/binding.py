"""The functions of the C files, by name: what they take, and how they are called."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

from torch import Tensor

from metarun.compute.kernels import compiler as c_library


class Convolution(ctypes.Structure):
    """`convolution` of `products.h`; in and out are channels of one group."""

    _fields_ = [
        (name, ctypes.c_int)
        for name in (
            *("images", "in", "out", "height", "width", "out_height", "out_width", "rows", "columns"),
            *("row_stride", "column_stride", "row_padding", "column_padding", "groups"),
        )
    ]


class Images(ctypes.Structure):
    """`images` of `normalisation.c`."""

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
"""By name, the file of a function, what its first argument points to, and how many more pointers it takes."""


@functools.cache
def library(source: str) -> ctypes.CDLL:
    """Return the library of a C file of this package, compiled where it is not yet; NoLibraryError where it cannot be had here."""
    library = c_library.load(Path(__file__).with_name(source))
    for name, (file, shape, pointers) in _FUNCTIONS.items():
        if file == source:
            getattr(library, name).argtypes = [ctypes.POINTER(shape), *[ctypes.c_void_p] * pointers]
    return library


def call(name: str, shape: ctypes.Structure, *tensors: Tensor | None) -> int:
    """Call a function, for which other threads do not wait; what it returns means something for convolutions only.

    tensors: float32 or int64, in the order in memory that the C file says, and as many as the function takes; None for none.
    """
    pointers = (None if tensor is None else tensor.data_ptr() for tensor in tensors)
    found: int = getattr(library(_FUNCTIONS[name][0]), name)(ctypes.byref(shape), *pointers)
    return found
