"""Files that a stranger could give to metarun as checkpoints: each claims what it does not have, or names what it should not."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from metarun.records import checkpoint
from metarun.records.content import digest

CONFIG = {"algo": {"_target_": "metarun.algorithms.maml.Maml"}}


def content(**changes: Any) -> dict[str, Any]:
    """Return the content of an honest checkpoint, in the format without a digest, with changes."""
    honest: dict[str, Any] = {"step": 1, "params": {}, "state": {}, "optimizer": {}, "best": None, "window": {}, "config": CONFIG}
    return {**honest, "execution": {}, "origins": [], "version": "0", "format": 2, **changes}


class Storage:
    """The memory of a tensor, as a pickle names it."""

    def __init__(self, key: Any = "0", numbers: Any = 4, kind: Any = torch.FloatStorage) -> None:
        self.pid = ("storage", kind, key, "cpu", numbers)


class Claim:
    """Pickles to a tensor of this shape and these strides in a storage."""

    def __init__(self, storage: Any, shape: Any, strides: Any, offset: Any = 0) -> None:
        self.arguments = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return torch._utils._rebuild_tensor_v2, self.arguments


class Call:
    """Pickles to a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value.pid if isinstance(value, Storage) else None


def pickled(value: Any, protocol: int = 2) -> bytes:
    """Return the pickle of a value with storages in it."""
    file = io.BytesIO()
    _Pickler(file, protocol).dump(value)
    return file.getvalue()


def archive(path: Path, pickle: bytes, records: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> None:
    """Write a checkpoint's archive with this pickle and these records."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in {"data.pkl": pickle, "byteorder": b"little", **(records or {})}.items():
            file.writestr(f"archive/{name}", data)


def params(claim: Any, records: dict[str, bytes] | None = None, **options: Any) -> Callable[[Path], None]:
    """Return a function that writes a checkpoint with one parameter."""
    held = {"data/0": bytes(16)} if records is None else records
    return lambda path: archive(path, pickled(content(params={"w": claim})), held, **options)


def changed(**changes: Any) -> Callable[[Path], None]:
    """Return a function that writes an honest checkpoint with changes."""
    return lambda path: archive(path, pickled(content(**changes)))


def saved(value: Any) -> Callable[[Path], None]:
    """Return a function that writes a parameter as `torch.save` does."""
    return lambda path: torch.save(content(params={"w": value}), path)


def nested(levels: int, width: int) -> list[Any]:
    """Return a list that holds another one `width` times, and so on."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value] * width
    return value


def deep(levels: int) -> bytes:
    """Return the pickle of lists inside of one another."""
    return b"\x80\x02" + b"]" * levels + b"a" * (levels - 1) + b"."


def _directory(path: Path) -> None:
    path.mkdir()


def _many_members(path: Path) -> None:
    archive(path, pickled(content()), {"x": b""})
    with zipfile.ZipFile(path, "a") as file:
        one = file.getinfo("archive/x")
        file.filelist += [one] * 60_000
        file._didModify = True  # type: ignore[attr-defined]


def _twice(path: Path) -> None:
    archive(path, pickled(content()))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/DATA.PKL", b"")
        file.writestr("archive/x/data.pkl", b"")
        file.writestr("brchive/data.pkl", pickled(content()))


def _overlapping(path: Path) -> None:
    """Let a hundred members stand for the same bytes."""
    archive(path, pickled(content()), {"data/0": bytes(100_000)})
    with zipfile.ZipFile(path, "a") as file:
        one = file.getinfo("archive/data/0")
        for number in range(1, 100):
            copy = zipfile.ZipInfo(f"archive/data/{number}")
            copy.header_offset, copy.file_size, copy.compress_size, copy.CRC = one.header_offset, one.file_size, one.file_size, one.CRC
            file.filelist.append(copy)
        file._didModify = True  # type: ignore[attr-defined]


def _digest(path: Path) -> None:
    archive(path, pickled({**content(format=checkpoint.FORMAT, data={}), "digest": "0" * 64}))


def _shared_record(path: Path) -> None:
    two = {name: Claim(Storage(), (4,), (1,)) for name in ("v", "w")}
    archive(path, pickled(content(params=two)), {"data/0": bytes(16)})


def _big_note(path: Path) -> None:
    """Note a value under the number 2^31, for which a C unpickler would make room."""
    archive(path, b"\x80\x02}r\xff\xff\xff\x7f.")


def _long_text(path: Path) -> None:
    """Claim text of 4 GB."""
    archive(path, b"\x80\x02X\xff\xff\xff\xffabc.")


def _self_reference(path: Path) -> None:
    loop: list[Any] = []
    loop.append(loop)
    archive(path, pickled(content(config={"a": loop})))


class _Kept:
    """A class of some other program."""


HOSTILE: dict[str, Callable[[Path], None]] = {
    "a tensor expanded to 16 GB": saved(torch.zeros(1).expand(2**32)),
    "a tensor of 16 GB with 16 bytes": params(Claim(Storage(numbers=2**32), (2**32,), (1,))),
    "a storage larger than its record": params(Claim(Storage(numbers=4096), (4096,), (1,))),
    "a tensor that begins behind its record": params(Claim(Storage(), (4,), (1,), 4)),
    "a tensor before its record": params(Claim(Storage(), (4,), (1,), -4)),
    "a tensor of a negative length": params(Claim(Storage(), (-4,), (1,))),
    "a tensor with a negative stride": params(Claim(Storage(), (2, 2), (-2, 1))),
    "rows that overlap": params(Claim(Storage(), (2, 2), (1, 1))),
    "strides beyond the record": params(Claim(Storage(), (2, 2), (1 << 40, 1))),
    "one length for two axes": params(Claim(Storage(), (2, 2), (1,))),
    "thousands of axes": params(Claim(Storage(), (1,) * 3000 + (4,), (1,) * 3001)),
    "lengths that overflow": params(Claim(Storage(numbers=0), (2**40, 2**40), (2**40, 1))),
    "a record that is not there": params(Claim(Storage("7"), (4,), (1,))),
    "a record of another folder": params(Claim(Storage("../data.pkl"), (4,), (1,))),
    "one record for two tensors": _shared_record,
    "a storage that claims more than its record": params(Claim(Storage(numbers=8), (4,), (1,))),
    "a storage that is a number": params(Claim(3, (4,), (1,))),
    "a storage without a type": params(Claim(Storage(kind="float"), (4,), (1,))),
    "complex numbers": saved(torch.zeros(2, dtype=torch.complex64)),
    "a sparse tensor": saved(torch.eye(3).to_sparse()),
    "a quantised tensor": params(Call(torch._utils._rebuild_qtensor, Storage(), 0, (4,), (1,), None, False, OrderedDict())),
    "a tensor without memory": saved(torch.zeros(3, device="meta")),
    "a tensor with attributes": saved(torch.nn.Parameter(torch.zeros(2))),
    "10^9 nested references": changed(config={"a": nested(9, 10)}),
    "10^9 nested references as parameters": changed(params={"a": nested(30, 2)}),
    "a list inside of itself": _self_reference,
    "a thousand lists inside of one another": lambda path: archive(path, deep(1000)),
    "a hundred thousand lists inside of one another": lambda path: archive(path, deep(100_000)),
    "a million instructions": lambda path: archive(path, b"\x80\x02" + b"N0" * 1_100_000 + b"N."),
    "two million values": lambda path: archive(path, b"\x80\x02(" + b"N" * 2_000_000 + b"l."),
    "a note with a large number": _big_note,
    "text of 4 GB": _long_text,
    "bytes of 10 GB": changed(config={"a": Call(bytearray, 10**10)}),
    "a range of 10^12": changed(config={"a": Call(Counter, "x")}),
    "a call of the shell": changed(config={"a": Call(os.system, "touch mark")}),
    "a call of eval": changed(version=Call(eval, "open('mark', 'w')")),
    "a class of another program": lambda path: archive(path, pickled(_Kept(), 4)),
    "a newer pickle": lambda path: archive(path, pickled(content(), 5)),
    "a number of a thousand digits": changed(config={"seed": 10**1000}),
    "text with a NUL": changed(config={"task": {"root": "a\0b"}}),
    "half a character": changed(origins=["\ud800"]),
    "a compressed archive": lambda path: archive(path, pickled(content(config={"a": "0" * 10_000_000})), None, zipfile.ZIP_DEFLATED),
    "members that overlap": _overlapping,
    "60,000 members": _many_members,
    "two pickles": _twice,
    "no pickle": lambda path: zipfile.ZipFile(path, "w").close(),
    "a wrong digest": _digest,
    "a folder": _directory,
    "a pipe": lambda path: os.mkfifo(path),
    "nothing": lambda path: path.write_bytes(b"") and None,
    "zeros": lambda path: path.write_bytes(bytes(10_000)) and None,
    "text": lambda path: path.write_text("notes\n") and None,
    "the letters of a zip": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(500)) and None,
    "the end of a zip": lambda path: path.write_bytes(b"PK" + bytes(500) + b"PK\x05\x06" + b"\xff" * 18) and None,
    "a directory of 4 EB": lambda path: path.write_bytes(b"PK" + b"PK\x06\x06" + b"\x7f" * 72 + b"PK\x05\x06" + b"\xff" * 18) and None,
    "no parameters": lambda path: archive(path, pickled({key: value for key, value in content().items() if key != "params"})),
    "a step that is text": changed(step="1"),
    "a negative step": changed(step=-1),
    "a best that is a list": changed(best=[1]),
    "a best whose step is a path": changed(best={"score": 1.0, "mean": 1.0, "step": "../../x"}),
    "a best that kept text": changed(best={"score": 1.0, "mean": 1.0, "step": 1, "kept": ["x"]}),
    "a window of text": changed(window={"steps": 1, "loss": "x"}),
    "a window without steps": changed(window={"loss": 1.0}),
    "parameters in a list": changed(params=[1]),
    "a parameter that is a number": changed(params={"w": 1}),
    "a state without a name": lambda path: archive(path, pickled(content(state={1: Claim(Storage(), (4,), (1,))})), {"data/0": bytes(16)}),
    "a config that is a list": changed(config=[1]),
    "a config with a tensor": lambda path: archive(
        path, pickled(content(config={"algo": Claim(Storage(), (4,), (1,))})), {"data/0": bytes(16)}
    ),
    "origins that are numbers": changed(origins=[1]),
    "a key nobody knows": changed(surprise=1),
    "a version that is a number": changed(version=1),
    "another format": changed(format=99),
    "a format that is true": changed(format=True),
    "a list": lambda path: archive(path, pickled([1])),
}
"""What is wrong -> a function that writes such a file."""


def digest_of(stored: checkpoint.Checkpoint) -> str:
    """Return the digest over a checkpoint."""
    return digest(checkpoint._content(stored))
