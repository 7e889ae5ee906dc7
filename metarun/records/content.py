"""What a checkpoint may hold, plain values and dense tensors: a copy of them, and a digest over them."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from metarun.errors import UserError
from metarun.records.untrusted import DEPTH, INSTRUCTIONS, STORAGES, is_dense, is_scalar

SCALARS = (bool, int, float, str, type(None))
_VALUE, _TENSOR = 4, 40
"""The pickle instructions that a value takes at most, with the key or the list in which it stands."""
_TYPES = frozenset(STORAGES.values())


class Copier:
    """Copies plain containers, with detached tensors on the CPU.

    copy: whether to clone each tensor. Without it, tensors on the CPU keep their memory, unless an earlier tensor has the same memory.
    """

    def __init__(self, *, copy: bool = False) -> None:
        self._copy = copy
        self._taken: set[int] = set()
        self._instructions = 0

    def __call__(self, value: Any, where: str, depth: int = DEPTH - 1) -> Any:
        """Return the copy of a value; raise TypeError, with its place, where the value or a part is neither plain nor a dense tensor.

        depth: the levels of containers that may follow. Raises UserError where a reader would refuse the file: for too many values, too
        many levels, or a number or a text that no checkpoint may hold (`is_scalar`).
        """
        self._instructions += _TENSOR if isinstance(value, Tensor) else _VALUE
        if self._instructions > INSTRUCTIONS:
            raise UserError(f"{where} has too many entries for a checkpoint, which holds at most {INSTRUCTIONS // _VALUE:,} values.")
        if depth < 0:
            raise UserError(f"{where[:100]}… is nested too deep for a checkpoint, which holds at most {DEPTH} levels.")
        if type(value) in SCALARS:
            return _storable(value, where)
        if isinstance(value, Tensor):
            return self._tensor(value, where)
        if type(value) is dict:
            wrong = [key for key in value if type(key) not in (str, int)]
            if wrong:
                raise TypeError(f"{where} has the key {wrong[0]!r}; keys are strings or integers")
            return {_storable(key, where): self(item, f"{where}.{key}", depth - 1) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self(item, f"{where}[{i}]", depth - 1) for i, item in enumerate(value))
        raise TypeError(
            f"{where} is a {type(value).__module__}.{type(value).__qualname__}; a checkpoint holds plain values and tensors only"
        )

    def _tensor(self, tensor: Tensor, where: str) -> Tensor:
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            raise TypeError(f"{where} is not a dense tensor")
        if tensor.dtype not in _TYPES:
            raise TypeError(f"{where} has the type {tensor.dtype}, which a checkpoint does not hold")
        tensor = tensor.detach().to("cpu", copy=self._copy)
        memory = tensor.untyped_storage()
        # torch.save writes whole storages: for a small view of a large tensor, it would write the large tensor.
        whole = memory.nbytes() == tensor.numel() * tensor.element_size() and is_dense(tuple(tensor.shape), tensor.stride())
        if memory.data_ptr() in self._taken:
            return tensor.clone()
        if whole and memory.nbytes():
            self._taken.add(memory.data_ptr())
        return tensor if whole else tensor.clone()


def _storable(value: Any, where: str) -> Any:
    """Return a plain value; UserError, with its place, for one that a reader would refuse."""
    if not is_scalar(value):
        rule = "whole numbers of at most 64 bits" if type(value) is int else "text without NUL and half characters"
        raise UserError(f"{where} holds {ascii(value)[:100]}, and a checkpoint holds {rule} only.")
    return value


def digest(content: Any) -> str:
    """Return the SHA-256 of plain values and tensors, over types, values, shapes, strides and bits."""
    hashed = hashlib.sha256()
    _feed(hashed, content)
    return hashed.hexdigest()


def _feed(hashed: Any, value: Any) -> None:
    """Hash a value behind its type and its length, so that no two contents give the same bytes."""
    if isinstance(value, Tensor):
        hashed.update(f"tensor {value.dtype} {tuple(value.shape)} {value.stride()};".encode())
        flat = value.as_strided((value.numel(),), (1,))  # in the order of memory
        hashed.update(flat.view(torch.uint8).numpy() if value.numel() else b"")
    elif isinstance(value, dict):
        hashed.update(f"dict {len(value)};".encode())
        for key, item in value.items():
            _feed(hashed, key)
            _feed(hashed, item)
    elif isinstance(value, (list, tuple)):
        hashed.update(f"{type(value).__name__} {len(value)};".encode())
        for item in value:
            _feed(hashed, item)
    else:
        text = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else repr(value).encode()
        hashed.update(f"{type(value).__name__} {len(text)};".encode())
        hashed.update(text)
