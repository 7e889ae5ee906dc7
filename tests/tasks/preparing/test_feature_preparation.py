"""From images to the vectors of `task=features`, with the network and from a checkpoint."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from metarun.errors import UserError
from metarun.tasks.preparing.feature_preparation import PORTION, FeaturePreparation
from metarun.tasks.preparing.image_preparation import ImagePreparation
from metarun.tasks.preparing.preparation import preparation_of


def rows(x: Tensor) -> Tensor:
    assert len(x) <= PORTION
    return x.sum(dim=(1, 3))


PREPARED = FeaturePreparation(ImagePreparation(8, 1, False), (8,), "abc", rows)


def test_pictures_become_the_vectors_of_the_network_in_portions() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (PORTION + 3, 8, 8)).astype(np.uint8)
    torch.testing.assert_close(PREPARED.inputs(pictures), torch.from_numpy(pictures).float().sum(dim=2) / 255.0)


def test_vectors_are_features_already_and_need_no_network() -> None:
    vectors, bare = torch.rand(3, 8), dataclasses.replace(PREPARED, embed=None)
    assert torch.equal(bare.inputs(vectors), vectors)
    assert torch.equal(bare.inputs(vectors[0].double().numpy()), vectors[:1])
    assert not torch.equal(PREPARED.inputs(torch.rand(1, 8, 8)), torch.rand(1, 8)), "one grey image is none"


def test_a_preparation_survives_a_checkpoint_without_its_network() -> None:
    found = preparation_of(PREPARED.stored(), (8,), 0)
    assert found == dataclasses.replace(PREPARED, embed=None)
    with pytest.raises(UserError, match="the network that computes features is not loaded"):
        found.inputs(np.zeros((1, 8, 8), dtype=np.uint8))


@pytest.mark.parametrize("wrong", [{"images": None}, {"images": {"size": -1}}, {"weights": 5}, {"images": {"kind": "features"}}])
def test_a_strangers_values_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match="cannot read"):
        preparation_of({**PREPARED.stored(), **wrong}, (8,), 0)
