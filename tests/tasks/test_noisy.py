from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from small import Lines, few_shot
from torch import Tensor

from metarun.errors import UserError
from metarun.tasks.noisy import Noisy
from metarun.tasks.sinusoid import sinusoid
from metarun.types import Episode, Examples

MANY = torch.arange(20_000)


def differences(source: Noisy, split: str, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the noise of the support (T, K) and of the query (T, Q)."""
    clean, noisy = source.source.batch(split, indices), source.batch(split, indices)  # type: ignore[attr-defined]
    support, query = (after.y - before.y for before, after in zip(clean, noisy, strict=True))
    return support[..., 0], query[..., 0]


def test_the_noise_has_its_deviation_on_support_and_query_and_is_new_for_each_point():
    support, query = differences(Noisy(sinusoid(shots=2, queries=2), 0.3), "train", MANY)
    for difference in (support, query):
        assert difference.std().item() == pytest.approx(0.3, abs=0.005)
        assert abs(difference.mean().item()) < 0.005
    assert (torch.cat([support, query], dim=1).T.corrcoef() - torch.eye(4)).abs().max() < 0.04


def test_inputs_and_masks_are_those_of_the_source():
    @dataclass(frozen=True)
    class Padded:
        objective: str = "regression"

        def episode(self, split: str, index: int) -> Episode:
            part = Examples(torch.full((2, 3), float(index)), torch.zeros(2, 1), torch.tensor([True, False]))
            return Episode(part, part)

    support, query = Noisy(Padded(), 1.0).batch("val", torch.tensor([5, 7]))
    for part in (support, query):
        assert part.x[:, 0, 0].tolist() == [5.0, 7.0]
        assert part.mask is not None
        assert part.mask.tolist() == [[True, False]] * 2
        assert (part.y != 0).all()


def test_without_noise_the_episodes_are_those_of_the_source():
    for clean, noisy in zip(Lines().episode("test", 4), Noisy(Lines(), 0.0).episode("test", 4), strict=True):
        assert torch.equal(clean.x, noisy.x)
        assert torch.equal(clean.y, noisy.y)


def test_the_seed_decides_the_noise_of_training_and_the_eval_seed_that_of_the_other_splits():
    plain, seeded, moved = (Noisy(sinusoid(), 1.0, *seeds) for seeds in ((0, 0), (1, 0), (0, 1)))
    indices = torch.arange(3)

    def noise(source: Noisy, split: str) -> Tensor:
        return differences(source, split, indices)[1]

    assert not torch.equal(noise(plain, "train"), noise(seeded, "train"))
    assert torch.equal(noise(plain, "train"), noise(moved, "train"))
    for split in ("val", "test"):
        assert torch.equal(noise(plain, split), noise(seeded, split))
        assert not torch.equal(noise(plain, split), noise(moved, split))
    assert not torch.equal(noise(plain, "val"), noise(plain, "test"))


def test_the_curve_is_free_of_noise():
    source = Noisy(sinusoid(), 1.0)
    query = sinusoid().episode("test", 2).query
    torch.testing.assert_close(source.curve("test", 2, query.x), query.y)
    with pytest.raises(AttributeError):
        Noisy(Lines(), 1.0).curve("test", 2, query.x)


@pytest.mark.parametrize("noise", [-0.1, math.nan, math.inf])
def test_noise_that_is_no_deviation_is_refused(noise: float):
    with pytest.raises(UserError, match=f"^task.noise={noise} must not be negative, and must be finite.$"):
        Noisy(sinusoid(), noise)


def test_noise_on_labels_is_refused():
    with pytest.raises(UserError, match="needs targets of a regression, and this task is classification"):
        Noisy(few_shot(), 0.1)


def test_the_tasks_behind_the_noise_are_those_of_the_source():
    @dataclass(frozen=True)
    class Named(Lines):
        def origins(self, split: str) -> list[str]:
            return [f"houses/{split}"]

        def population(self, split: str) -> int:
            return 7

    assert (Noisy(Named(), 0.1).origins("val"), Noisy(Named(), 0.1).population("val")) == (["houses/val"], 7)
    assert (Noisy(Lines(), 0.1).origins("val"), Noisy(Lines(), 0.1).population("val")) == ((), None)
