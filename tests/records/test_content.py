"""Copies of plain content, and the digest over it. `test_checkpoint.py` has the copies of whole checkpoints."""

from __future__ import annotations

import io
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from metarun.errors import UserError
from metarun.records.content import Copier, digest
from metarun.records.untrusted import DEPTH, is_dense, read


def test_tensors_of_one_memory_get_a_memory_each() -> None:
    """A reader refuses two tensors in one record."""
    weight = torch.arange(6.0)
    one, other, part = Copier()([weight, weight.reshape(2, 3), weight[:3]], "x")
    assert one.data_ptr() == weight.data_ptr()
    assert len({tensor.data_ptr() for tensor in (one, other, part)}) == 3
    assert torch.equal(other, weight.reshape(2, 3))


@pytest.mark.parametrize("value", [torch.zeros(1).expand(4), torch.zeros(4).as_strided((2, 2), (1, 1)), torch.zeros(2, 4)[:, ::2]])
def test_a_tensor_that_does_not_fill_its_memory_becomes_one_that_does(value: torch.Tensor) -> None:
    copied = Copier()(value, "x")
    assert torch.equal(copied, value)
    assert is_dense(tuple(copied.shape), copied.stride())
    assert copied.untyped_storage().nbytes() == 4 * copied.numel()


def test_a_type_that_cannot_be_read_back_is_refused_with_its_place() -> None:
    with pytest.raises(TypeError, match=r"x\.a\[0\] has the type torch.complex64"):
        Copier()({"a": [torch.zeros(1, dtype=torch.complex64)]}, "x")


def test_more_values_than_a_reader_takes_are_refused_when_they_are_saved() -> None:
    """Each takes four instructions of the pickle at most: a key and a text, each with a note for later references."""
    assert len(Copier()([{"some name": "some text"}] * 70_000, "x")) == 70_000
    with pytest.raises(UserError, match=r"x\[\d+\] has too many entries for a checkpoint"):
        Copier()(["text"] * 300_000, "x")
    value = [{f"{number}": f"text {number}"} for number in range(100)]
    buffer = io.BytesIO()
    torch.save(value, buffer)
    pickled = zipfile.ZipFile(buffer).read("archive/data.pkl")
    assert sum(1 for _ in pickletools.genops(pickled)) <= 4 * 201 + 10


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (2**63, r"x\.a\[0\] holds 9223372036854775808, and a checkpoint holds whole numbers of at most 64 bits only"),
        (-(2**63) - 1, "64 bits"),
        ("a\0b", r"x\.a\[0\] holds 'a\\x00b', and a checkpoint holds text without NUL and half characters only"),
        ("\ud800", "half characters"),
        ({2**63: 1}, "64 bits"),
        ({"a\0b": 1}, "NUL"),
    ],
)
def test_a_value_that_a_reader_refuses_is_refused_when_it_is_saved(value: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Copier()({"a": [value]}, "x")


def test_containers_are_nested_as_deep_as_a_reader_takes_them(tmp_path: Path) -> None:
    def nested(levels: int) -> Any:
        value: Any = "\udcff"
        for _ in range(levels):
            value = [value]
        return value

    content = {"x": Copier()(nested(DEPTH - 1), "x")}
    torch.save(content, tmp_path / "file")
    assert read(tmp_path / "file") == content
    with pytest.raises(UserError, match="is nested too deep"):
        Copier()(nested(DEPTH), "x")


DIFFERENT: list[Any] = [
    *(None, True, 1, 1.0, "1", "", [], (), {}, [1], (1,), [[1]], [1, [1]], {"a": 1}, {"a": 1.0}, {1: "a"}, {"a": {"b": 1}}, {"ab": 1}),
    *(torch.zeros(2), torch.ones(2), torch.zeros(2, 1), torch.zeros(1, 2), torch.zeros(2).double(), torch.zeros(2).long(), torch.zeros(0)),
    *(
        torch.zeros(2, 2),
        torch.zeros(2, 2).mT,
        torch.tensor([0.0, -0.0]),
        [torch.zeros(2)],
        0.0,
        -0.0,
        "\udcff",
        "None",
        ["a", "b"],
        ["ab"],
    ),
]


def test_different_contents_have_different_digests() -> None:
    assert len({digest(value) for value in DIFFERENT}) == len(DIFFERENT)


def test_equal_contents_have_equal_digests() -> None:
    for value in DIFFERENT:
        assert digest(value) == digest(Copier(copy=True)(value, "x"))
