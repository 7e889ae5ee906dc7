"""Episodes from a source into a batch, and out of it again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metarun.episodes import deal, first_of, stack
from metarun.types import Episode, Examples


def episode(index: int, mask: Tensor | None = None) -> Episode:
    examples = Examples(torch.full((3, 2), float(index)), torch.full((3, 1), 10.0 * index), mask)
    return Episode(examples, examples)


@dataclass(frozen=True)
class OneByOne:
    objective: str = "regression"

    def episode(self, split: str, index: int) -> Episode:
        return episode(index)


@dataclass(frozen=True)
class AtOnce(OneByOne):
    def batch(self, split: str, indices: Tensor) -> Episode:
        return stack([episode(100 + int(index)) for index in indices])


def test_a_source_is_asked_for_a_batch_if_it_has_one_and_for_single_episodes_if_not():
    indices = torch.tensor([4, 7])
    for source, first in ((OneByOne(), [4.0, 7.0]), (AtOnce(), [104.0, 107.0])):
        batch = deal(source, "train", indices)
        assert batch.support.x.shape == (2, 3, 2)
        assert batch.support.x[:, 0, 0].tolist() == first


def test_the_first_of_a_stack_is_the_first_episode_with_its_mask():
    mask = torch.tensor([True, False, True])
    first = first_of(stack([episode(1, mask), episode(2, ~mask)]))
    assert torch.equal(first.query.x, episode(1).query.x)
    assert torch.equal(first.query.y, episode(1).query.y)
    assert first.query.mask is not None
    assert torch.equal(first.query.mask, mask)
    assert first_of(stack([episode(1), episode(2)])).query.mask is None


def test_class_numbers_are_stacked_and_unstacked_with_the_rest():
    numbered = [Episode(*(part._replace(classes=torch.tensor([number])) for part in episode(number))) for number in (4, 7)]
    batch = stack(numbered)
    assert batch.support.classes is not None
    assert batch.support.classes.tolist() == [[4], [7]]
    assert first_of(batch).query.classes == 4
