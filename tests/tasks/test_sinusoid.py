from __future__ import annotations

import math

import pytest
import torch

from metarun import draws
from metarun.errors import UserError
from metarun.tasks.curves import line, quadratic
from metarun.tasks.functions import FunctionTasks
from metarun.tasks.regression import regression
from metarun.tasks.sinusoid import Sinusoids, sinusoid

MANY = torch.arange(20_000)


def uniform_between(values: torch.Tensor, low: float, high: float) -> None:
    """Check range, mean and standard deviation of U[low, high] to about five standard errors."""
    assert low <= values.min() < low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) < values.max() <= high
    tolerance = 5 * (high - low) / math.sqrt(12 * len(values))
    assert values.mean().item() == pytest.approx((low + high) / 2, abs=tolerance)
    assert values.std().item() == pytest.approx((high - low) / math.sqrt(12), abs=tolerance)


def test_amplitude_and_phase_have_the_ranges_of_maml():
    drawn = Sinusoids().draw(draws.key(0, "train", MANY))
    uniform_between(drawn["amplitude"], 0.1, 5.0)
    uniform_between(drawn["phase"], 0.0, math.pi)
    assert torch.corrcoef(torch.stack([drawn["amplitude"], drawn["phase"]]))[0, 1].abs() < 0.04


def test_inputs_are_uniform_between_minus_five_and_five():
    batch = sinusoid(shots=3, queries=2, train_queries=2).batch("train", torch.arange(5_000))
    uniform_between(torch.cat([batch.support.x, batch.query.x], dim=1).flatten(), -5.0, 5.0)


def test_every_value_is_the_amplitude_times_the_sine_of_x_minus_the_phase():
    source = sinusoid(seed=3)
    episode, key = source.episode("train", 11), draws.fold(draws.key(3, "train", torch.tensor([11])), "function")
    drawn = Sinusoids().draw(key)
    for part in episode:
        torch.testing.assert_close(part.y, drawn["amplitude"] * torch.sin(part.x - drawn["phase"]))


def test_the_curve_passes_through_support_and_query():
    source = sinusoid()
    for split in ("train", "val", "test"):
        for part in source.episode(split, 5):
            torch.testing.assert_close(source.curve(split, 5, part.x), part.y)


def test_shapes_are_those_of_mamls_protocol():
    source = sinusoid(shots=10, queries=100, train_queries=10)
    assert [tuple(part.x.shape) for part in source.episode("train", 0)] == [(10, 1), (10, 1)]
    assert [tuple(part.y.shape) for part in source.episode("test", 0)] == [(10, 1), (100, 1)]
    assert all(part.mask is None for part in source.episode("test", 0))


def test_train_shots_hold_for_training_only():
    source = sinusoid(shots=5, train_shots=20)
    assert [len(source.episode(split, 0).support.x) for split in ("train", "val", "test")] == [20, 5, 5]


def test_a_batch_is_its_episodes_whatever_their_order():
    source, indices = sinusoid(), torch.tensor([7, 0, 123_456_789, 7])
    batch = source.batch("val", indices)
    for place, index in enumerate(indices.tolist()):
        for part, alone in zip(batch, source.episode("val", index), strict=True):
            assert torch.equal(part.x[place], alone.x)
            assert torch.equal(part.y[place], alone.y)


def test_the_seed_changes_training_only_and_eval_seed_the_rest_only():
    base, other, moved = sinusoid(), sinusoid(seed=1), sinusoid(eval_seed=1)
    for split in ("train", "val", "test"):
        same = torch.equal(base.episode(split, 0).support.x, other.episode(split, 0).support.x)
        assert same == (split != "train")
        assert torch.equal(base.episode(split, 0).support.x, moved.episode(split, 0).support.x) == (split == "train")


def test_splits_and_episodes_differ():
    source = sinusoid()
    firsts = [source.episode(split, index).support.x[0].item() for split in ("train", "val", "test") for index in range(100)]
    assert len(set(firsts)) == 300


@pytest.mark.parametrize(
    ("split", "x", "y"),
    [
        ("train", [-0.395700, -4.418830], [-2.212898, 1.736063, 1.818076]),
        ("val", [2.055256, 1.625541], [-0.914642, -2.252956, -2.736620]),
        ("test", [-2.503601, -3.810791], [1.771805, -0.260188, -1.821073]),
    ],
)
def test_the_stream_is_pinned(split: str, x: list[float], y: list[float]):
    """A change here changes every published seed."""
    episode = sinusoid(shots=2, queries=1, seed=7).episode(split, 3)
    torch.testing.assert_close(episode.support.x[:, 0], torch.tensor(x), atol=2e-6, rtol=0)
    torch.testing.assert_close(torch.cat([episode.support.y, episode.query.y])[:, 0], torch.tensor(y), atol=2e-6, rtol=0)


@pytest.mark.parametrize("key", ["shots", "queries", "train_shots", "train_queries"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "ten", True])
def test_sizes_must_be_whole_and_positive(key: str, value: object):
    with pytest.raises(UserError, match=f"task.{key}={value} must be a whole number of at least 1"):
        sinusoid(**{key: value})


@pytest.mark.parametrize("key", ["seed", "eval_seed"])
def test_seeds_must_be_whole_and_may_be_negative(key: str):
    assert isinstance(sinusoid(**{key: -3}), FunctionTasks)
    with pytest.raises(UserError, match=rf"task.{key}=abc must be a whole number\."):
        sinusoid(**{key: "abc"})


@pytest.mark.parametrize("make", [sinusoid, line, quadratic, regression])
def test_a_key_that_there_is_not_is_told_with_the_nearest(make):
    with pytest.raises(UserError, match=r"task.shotss is not a key of this task\. Did you mean 'shots'\?"):
        make(shotss=3)


def test_an_unknown_split_names_the_nearest():
    with pytest.raises(UserError, match=r"there is no split 'valid'; this task has train, val, test. Did you mean 'val'\?"):
        sinusoid().episode("valid", 0)


def test_the_source_is_frozen():
    source = sinusoid()
    assert isinstance(source, FunctionTasks)
    assert source.objective == "regression"
    with pytest.raises(AttributeError):
        source.shots = 3
