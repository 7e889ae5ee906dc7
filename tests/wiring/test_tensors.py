"""Tensors of a checkpoint beside those that its config needs."""

from __future__ import annotations

import pytest
import torch

from metarun.errors import UserError
from metarun.wiring.tensors import are_close, check_no_others, check_storable, check_tensors, is_alike

WANTED = {"w": torch.zeros(2, 3), "count": torch.tensor(0)}


def test_equal_names_shapes_and_types_pass_whatever_the_numbers() -> None:
    stored = {"count": torch.tensor(7), "w": torch.full((2, 3), float("nan"))}
    check_tensors(stored, WANTED, "state")
    check_no_others(stored, WANTED, "state")


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ({"w": torch.zeros(2, 3)}, "has no state 'count'"),
        ({**WANTED, "w": torch.zeros(3, 2)}, r"'w' has shape \(3, 2\) and its config needs \(2, 3\)"),
        ({**WANTED, "w": torch.zeros(6)}, r"'w' has shape \(6,\)"),
        ({**WANTED, "w": torch.zeros(2, 3, dtype=torch.float64)}, "'w' holds float64 and its config needs float32"),
        ({**WANTED, "count": torch.tensor(0.0)}, "'count' holds float32 and its config needs int64"),
    ],
)
def test_another_shape_or_type_is_a_sentence(stored: dict[str, torch.Tensor], words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_tensors(stored, WANTED, "state")
    assert not all(name in stored and is_alike(stored[name], value) for name, value in WANTED.items())


def test_a_tensor_that_nobody_needs_is_named_without_control_characters() -> None:
    with pytest.raises(UserError, match=r"has the parameter '\\x1b\[2J', which its config does not need"):
        check_no_others({**WANTED, "\x1b[2J": torch.zeros(1)}, WANTED, "parameter")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.1, "Mine: its 'w' has the type float, and must be a tensor"),
        (
            torch.ones(2, dtype=torch.complex64),
            "Mine: its tensor 'w' has the type torch.complex64, which a checkpoint does not hold; keep it",
        ),
        (torch.eye(2).to_sparse(), "Mine: its tensor 'w' is not a dense tensor; keep it"),
    ],
)
def test_what_no_checkpoint_holds_is_named(value: object, words: str) -> None:
    check_storable(WANTED, "Mine")
    with pytest.raises(UserError, match=f"^{words}"):
        check_storable({**WANTED, "w": value}, "Mine")


def test_close_tensors_differ_by_a_share_of_the_largest_value_of_all() -> None:
    theirs = [torch.tensor([1.0, float("nan")]), torch.tensor([100.0])]
    assert are_close([torch.tensor([1.9, float("nan")]), torch.tensor([99.1])], theirs, 0.01)
    assert not are_close([torch.tensor([2.1, float("nan")]), torch.tensor([100.0])], theirs, 0.01)
    assert not are_close([torch.tensor([1.0, 1.0]), torch.tensor([100.0])], theirs, 0.01)
    assert not are_close(theirs[:1], theirs, 0.01)
    assert not are_close([theirs[0][None], theirs[1]], theirs, 0.01)
    assert are_close([], [], 0.0)
