"""The Python side of the C functions names what the C files define."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from metarun.compute import kernels
from metarun.compute.kernels import binding

FOLDER = Path(binding.__file__).parent
TEXTS = {file.name: file.read_text(encoding="utf-8") for file in sorted(FOLDER.glob("*.[ch]"))}
PARAMETERS = re.compile(r"^(?:int|void) (\w+)\(([^)]*)\)\n\{", re.MULTILINE)


def members(text: str, name: str) -> list[str]:
    body = re.search(rf"typedef struct \{{([^}}]*)\}} {name};", text)
    assert body is not None
    return re.findall(r"\w+(?=[,;])", re.sub(r"/\*.*?\*/", "", body[1]))


def test_the_structs_have_the_members_of_the_c_files_in_their_order() -> None:
    assert [name for name, _ in binding.Convolution._fields_] == members(TEXTS["products.h"], "convolution")
    assert [name for name, _ in binding.Images._fields_] == members(TEXTS["normalisation.c"], "images")


def test_every_public_c_function_is_bound_with_its_number_of_pointers() -> None:
    defined = {
        name: (file, len(parameters.split(",")) - 1) for file, text in TEXTS.items() for name, parameters in PARAMETERS.findall(text)
    }
    bound = {name: (file, pointers) for name, (file, _, pointers) in binding._FUNCTIONS.items()}
    assert bound == defined


@pytest.mark.skipif(kernels.missing() is not None, reason="needs the C kernels")
def test_a_call_reads_and_writes_the_memory_of_its_tensors() -> None:
    """Columns 1, 3 and 2, 8: mean 2 and 5, variance 1 and 9."""
    x = torch.tensor([[1.0, 2.0], [3.0, 8.0]])
    mean, variance = torch.empty(2), torch.empty(2)
    binding.call("column_statistics", binding.Images(2, 1, 1, 2), x, mean, variance)
    assert mean.tolist() == [2.0, 5.0]
    assert variance.tolist() == [1.0, 9.0]
