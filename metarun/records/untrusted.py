"""Read a file of `torch.save` that anybody may have written: no code in it runs, and reading it takes no more memory than its own size.

`torch.load(weights_only=True)` runs no code either, but it believes the sizes in a file. A tensor may claim more numbers than the file
has, and torch then reads memory beyond them. A few bytes may ask for gigabytes. Therefore this module interprets the pickle by itself. It
accepts the few instructions that a checkpoint needs, and tensors that fill their part of the file exactly.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarun.errors import UserError
from metarun.records.archive import Archive, DamagedError, StrangeError, opened

INSTRUCTIONS, DEPTH, AXES = 1_000_000, 64, 32
"""Limits: the instructions of a pickle, the nesting of containers, the axes of a tensor."""

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
"""The types of tensor that a checkpoint may hold, by the name that `torch.save` gives to their memory."""

_PLAIN = frozenset(
    "PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 "
    "EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS BINPUT LONG_BINPUT BINGET LONG_BINGET BINPERSID".split()
)
"""The pickle instructions that make plain values. A tensor needs two more, GLOBAL and REDUCE."""
_CODE = frozenset("STACK_GLOBAL INST OBJ NEWOBJ NEWOBJ_EX BUILD EXT1 EXT2 EXT4".split())
"""The other instructions that name or call code."""
_NO_TEXT = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")
_REBUILD, _HOOKS = ("torch._utils", "_rebuild_tensor_v2"), ("collections", "OrderedDict")


class _Record(NamedTuple):
    """The memory of a tensor, as the pickle describes it: a member of the archive with so many numbers."""

    name: str
    dtype: torch.dtype
    numbers: int


@dataclass(frozen=True)
class _Claim:
    """A tensor, as the pickle describes it: its record, its offset there, its shape and strides, and entries without a meaning here."""

    arguments: tuple[Any, ...]


def read(path: Path) -> Any:
    """Return the content of the file: plain values, and containers and tensors, each of them in one place only.

    Raises DamagedError for a file that is missing, damaged or no checkpoint, and UserError for one that cannot be read or that names code.
    """
    with opened(path) as file:
        try:
            archive = Archive(file, path)
            if archive.size_of("byteorder") is not None and archive.read("byteorder") != sys.byteorder.encode():
                raise UserError(f"{path} was written on a computer of another byte order; read it there.")
            return _Content(archive).value
        except StrangeError as error:
            raise DamagedError(f"{path} is not a checkpoint of metarun.") from error


class _Content:
    """The value that a pickle describes."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        pickled = archive.read("data.pkl")
        self._left = _count_instructions(pickled, archive.path)  # each value takes one at least, unless it stands in several places
        self._taken: set[str] = set()
        try:
            described = _Reader(io.BytesIO(pickled)).load()
        except Exception as error:  # such as too few values for an instruction
            raise StrangeError from error
        self.value = self._build(described, DEPTH)

    def _build(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0 or depth < 0:
            raise StrangeError
        if isinstance(value, _Claim):
            return self._tensor(value)
        if type(value) is dict and all(type(key) in (str, int) for key in value):
            return {self._build(key, depth): self._build(item, depth - 1) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self._build(item, depth - 1) for item in value)
        if not is_scalar(value):
            raise StrangeError
        return value

    def _tensor(self, claim: _Claim) -> Tensor:
        """Return the tensor of a claim. It must have a record for itself, and fill this record exactly."""
        if len(claim.arguments) not in (6, 7):
            raise StrangeError
        record, offset, shape, strides = claim.arguments[:4]
        if not (type(record) is _Record and type(offset) is int and offset == 0 and is_dense(shape, strides)):
            raise StrangeError
        count = math.prod(shape)
        size = self._archive.size_of(f"data/{record.name}")
        if size != count * record.dtype.itemsize or count != record.numbers or record.name in self._taken:
            raise StrangeError
        self._taken.add(record.name)
        memory = torch.empty(count, dtype=record.dtype)
        if count:
            self._archive.read_into(f"data/{record.name}", memory.view(torch.uint8).numpy().data)
        return memory.as_strided(shape, strides)


class _Reader(pickle.Unpickler):
    """An unpickler that makes descriptions of tensors, and has no other code to call."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the meaning of a name."""
        if (module, name) == _REBUILD:
            return lambda *arguments: _Claim(arguments)
        if (module, name) == _HOOKS:
            return lambda *_: None
        return STORAGES[name]

    def persistent_load(self, pid: Any) -> _Record:
        """Return the record that a tensor names."""
        kind, dtype, name, _, count = pid
        if kind != "storage" or type(dtype) is not torch.dtype or type(name) is not str or type(count) is not int:
            raise StrangeError
        return _Record(name, dtype, count)


def _count_instructions(pickled: bytes, path: Path) -> int:
    """Return the number of instructions; raises UserError or StrangeError for one that a checkpoint does not need."""
    number = 0
    try:
        for number, (instruction, argument, _) in enumerate(pickletools.genops(pickled), start=1):
            name = instruction.name
            if name in _CODE or (name == "GLOBAL" and not _is_known(*str(argument).split(" ", 1))):
                raise UserError(f"{path} holds objects that could run code, besides plain values and tensors; no code in it was run.")
            # LONG_BINPUT notes a value under any number, and pickle then makes room for all smaller numbers.
            unknown = name not in _PLAIN and name not in ("GLOBAL", "REDUCE")
            if unknown or number > INSTRUCTIONS or (name == "LONG_BINPUT" and int(argument or 0) > number):
                raise StrangeError
    except ValueError as error:  # the pickle ends early, or has no such instruction
        raise StrangeError from error
    return number


def _is_known(module: str, name: str) -> bool:
    return (module, name) in (_REBUILD, _HOOKS) or (module == "torch" and name in STORAGES)


def is_scalar(value: Any) -> bool:
    """Return whether a checkpoint may hold a plain value: None, a bool, a float, a whole number of 64 bits, or text.

    Text has no NUL and no half characters, apart from those that stand for bytes in the name of a file.
    """
    if type(value) is int:
        return -(2**63) <= value < 2**63
    return _NO_TEXT.search(value) is None if type(value) is str else type(value) in (bool, float, type(None))


def is_dense(shape: Any, strides: Any) -> bool:
    """Return whether a tensor of this shape and these strides, two tuples, takes each number of its memory exactly once."""
    if not (type(shape) is tuple and type(strides) is tuple and len(shape) == len(strides) <= AXES):
        return False
    if not all(type(each) is int and 0 <= each < 2**63 for each in (*shape, *strides)):
        return False
    expected = 1
    for stride, length in sorted((stride, length) for stride, length in zip(strides, shape, strict=True) if length > 1):
        if stride != expected:
            return False
        expected *= length
    return True
