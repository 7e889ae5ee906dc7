from __future__ import annotations

import math

import pytest
import torch

from metarun import draws
from metarun.errors import UserError
from metarun.tasks.regression import SharedFeatures, regression

MANY = draws.key(0, "train", torch.arange(20_000))


def test_every_value_follows_the_equation():
    """y = w · tanh(U x) + b, one row and one task at a time."""
    family, source = SharedFeatures(10, 3, 0), regression(seed=2)
    drawn = family.draw(draws.fold(draws.key(2, "train", torch.tensor([4])), "function"))
    episode = source.episode("train", 4)
    for x, y in zip(episode.query.x, episode.query.y, strict=True):
        expected = sum(w * math.tanh(u @ x) for w, u in zip(drawn["weights"][0], family.directions, strict=True)) + drawn["offset"][0]
        assert y.item() == pytest.approx(expected.item(), abs=1e-5)


def test_weights_offsets_and_inputs_have_the_documented_distributions():
    """20,000 draws: w has variance 1/3 in each of 3 directions, b has 1/4, x has 1; means are 0."""
    family = SharedFeatures(10, 3, 0)
    drawn = family.draw(MANY)
    for values, variance in ((drawn["weights"].flatten(), 1 / 3), (drawn["offset"], 1 / 4), (family.inputs(MANY, 2).flatten(), 1.0)):
        assert values.var().item() == pytest.approx(variance, rel=0.05)
        assert values.mean().item() == pytest.approx(0.0, abs=0.03)


def test_the_features_are_shared_by_all_seeds_and_splits_and_set_by_the_family_seed():
    """Tasks of any stream lie in the span of the same 3 features and a constant: the rank of their values at fixed x is 4."""
    x = torch.randn(40, 10, generator=torch.Generator().manual_seed(0))
    sources = [regression(), regression(seed=1), regression(eval_seed=5)]
    values = [source.curve(split, index, x) for source in sources for split in ("train", "test") for index in range(5)]
    assert torch.linalg.matrix_rank(torch.cat(values, dim=1).double(), rtol=1e-5) == 4
    other = regression(family_seed=1).curve("test", 0, x)
    assert torch.linalg.matrix_rank(torch.cat([*values, other], dim=1).double(), rtol=1e-5) == 5


def test_knowing_the_features_a_few_shots_suffice_and_the_mean_does_not():
    """Least squares on the true features solves a task from 10 shots; the support mean leaves most of the variance."""
    source = regression(shots=10)
    batch = source.batch("test", torch.arange(200))

    def design(x: torch.Tensor) -> torch.Tensor:
        features = torch.tanh(x @ source.family.directions.T)
        return torch.cat([features, torch.ones_like(features[..., :1])], dim=-1).double()

    solution = torch.linalg.lstsq(design(batch.support.x), batch.support.y.double()).solution
    assert (design(batch.query.x) @ solution - batch.query.y).square().mean() < 1e-6
    by_mean = (batch.query.y - batch.support.y.mean(dim=1, keepdim=True)).square().mean()
    assert by_mean.item() == pytest.approx(0.6, abs=0.1)


def test_shapes():
    source = regression(inputs=6, shots=20, queries=7, train_queries=5)
    assert [tuple(part.x.shape) for part in source.episode("train", 0)] == [(20, 6), (5, 6)]
    assert [tuple(part.y.shape) for part in source.batch("val", torch.arange(3))] == [(3, 20, 1), (3, 7, 1)]


def test_the_stream_is_pinned():
    episode = regression(shots=2, queries=1, seed=7).episode("train", 3)
    torch.testing.assert_close(episode.support.x[:, 0], torch.tensor([-0.099350, 1.244555]), atol=2e-6, rtol=0)
    values = torch.cat([episode.support.y, episode.query.y])[:, 0]
    torch.testing.assert_close(values, torch.tensor([-0.035883, 1.448994, -1.549891]), atol=1e-5, rtol=0)


def test_the_shots_must_be_positive():
    with pytest.raises(UserError, match=r"task\.shots=0 must be a whole number of at least 1"):
        regression(shots=0)
