from __future__ import annotations

import pytest
import torch
from small import Lines, few_shot

from metarun.errors import UserError
from metarun.tasks.mixture import Mixture
from metarun.tasks.noisy import Noisy
from metarun.tasks.preparing.preparation import ArrayPreparation, ImagePreparation, preparation_by, preparation_of
from metarun.tasks.preparing.table_preparation import TablePreparation
from metarun.tasks.sinusoid import sinusoid


def test_pictures_in_memory_say_their_size_and_a_source_of_points_takes_numbers_as_they_are():
    assert preparation_by(few_shot(side=8)) == ImagePreparation(8, 1)
    assert preparation_by(Lines()) is None
    waves = sinusoid()
    assert preparation_by(Noisy(Mixture({"a": waves, "b": waves}), 0.1)) is None


TREES = TablePreparation(("a",), {}, (0.0,), (1.0,), ("y",), (0.0,), (3.0,))


@pytest.mark.parametrize(
    "made",
    [ImagePreparation(28, 1, inverted=True), ImagePreparation(84, 3), TREES],
)
def test_a_preparation_comes_back_from_a_checkpoint(made: ImagePreparation | TablePreparation):
    assert preparation_of(made.stored(), made.shape, 1) == made


def test_numbers_are_taken_as_they_are_where_a_checkpoint_says_nothing_else():
    prepared = preparation_of({}, [4], 2)
    assert prepared == ArrayPreparation((4,), 2)
    assert prepared.inputs([[1, 2, 3, 4]]).tolist() == [[1, 2, 3, 4]]
    assert prepared.in_units(prepared.targets([[1, 2]])).tolist() == [[1, 2]]
    with pytest.raises(UserError, match=r"x has shape \(1, 3\); this model takes inputs of shape \(4,\)"):
        prepared.inputs(torch.zeros(1, 3))


@pytest.mark.parametrize(
    "stored",
    [
        {"kind": "video"},
        {"kind": ["images"]},
        {"kind": "images", "size": 28, "channels": 1},
        {"kind": "images", "size": 28.0, "channels": 1, "inverted": False},
        {"kind": "images", "size": True, "channels": 1, "inverted": False},
        {"kind": "images", "size": 10**9, "channels": 1, "inverted": False},
        {"kind": "images", "size": 28, "channels": 2, "inverted": False},
        {"kind": "images", "size": 27, "channels": 1, "inverted": False},
        {"kind": "table"},
        {"kind": "table", "features": ["a"]},
    ],
    ids=str,
)
def test_a_preparation_of_a_stranger_is_checked(stored: dict[str, object]):
    with pytest.raises(UserError, match="in a way that this metarun cannot read"):
        preparation_of(stored, [1, 28, 28], 0)
