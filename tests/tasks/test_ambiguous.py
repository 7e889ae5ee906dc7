from __future__ import annotations

import pytest
import torch

from metarun import draws
from metarun.errors import UserError
from metarun.predictive import coverage, mean, nll
from metarun.tasks.ambiguous import LINES, Ambiguous, ambiguous
from metarun.testing import check_source

MANY = torch.arange(20_000)


def test_without_noise_every_task_is_a_sinusoid_or_a_line_of_the_documented_ranges():
    source = ambiguous(noise=0.0, shots=3, queries=1)
    families = source.source.family("train", MANY)
    assert families.double().mean().item() == pytest.approx(0.5, abs=0.02)
    drawn = LINES.draw(draws.key(0, "train", MANY))
    for name in ("slope", "offset"):
        assert -3.0 <= drawn[name].min() < -2.9
        assert 2.9 < drawn[name].max() <= 3.0
    support = source.batch("train", MANY).support
    x, y = support.x[..., 0], support.y[..., 0]
    turned = (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0]) - (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0])  # 0 where three points are on a line
    assert ((turned.abs() < 1e-4) == (families == 1)).double().mean() > 0.999
    assert y[families == 0].abs().max() <= 5.0


def test_the_noise_has_its_deviation_on_support_and_query_and_is_new_for_each_point():
    clean, noisy = (ambiguous(noise=noise).batch("train", MANY) for noise in (0.0, 0.3))
    support, query = (after.y - before.y for before, after in zip(clean, noisy, strict=True))
    for difference in (support, query):
        assert difference.std().item() == pytest.approx(0.3, abs=0.005)
        assert abs(difference.mean().item()) < 0.005
    both = torch.cat([support[:, 0], query[:, 0], support[:, 1]], dim=1).T.corrcoef()
    assert (both - torch.eye(3)).abs().max() < 0.04


def test_the_curve_is_free_of_noise():
    for index in range(4):
        query = ambiguous(noise=0.0).episode("test", index).query
        torch.testing.assert_close(ambiguous().curve("test", index, query.x), query.y)


def test_the_seed_changes_training_only():
    first, second = ambiguous(), ambiguous(seed=1)
    assert not torch.equal(first.episode("train", 0).query.y, second.episode("train", 0).query.y)
    assert torch.equal(first.episode("test", 0).query.y, second.episode("test", 0).query.y)


def test_sizes_are_two_shots_unless_given():
    assert [len(part.x) for part in ambiguous().episode("train", 0)] == [2, 100]
    assert [len(part.x) for part in ambiguous(shots=2, train_queries=7).episode("train", 0)] == [2, 7]


def test_the_stream_is_pinned():
    episode = ambiguous(shots=2, queries=1, seed=7).episode("train", 3)
    torch.testing.assert_close(
        torch.cat([episode.support.y, episode.query.y])[:, 0], torch.tensor([-1.212708, -7.869318, 2.271145]), atol=2e-6, rtol=0
    )


def test_the_support_points_lie_in_their_range_and_the_queries_in_the_whole_range():
    source = ambiguous(shots=5, support_range=[-5, 0])
    check_source(source)
    for split in ("train", "test"):
        support, query = source.batch(split, torch.arange(500))
        assert -5.0 <= float(support.x.min()) < -4.9
        assert -0.1 < float(support.x.max()) < 0.0
        assert float(query.x.max()) > 4.9
    clean = ambiguous(noise=0.0, shots=5, support_range=[-5, 0]).episode("test", 3)
    torch.testing.assert_close(source.curve("test", 3, clean.support.x), clean.support.y)


def test_the_queries_of_a_task_do_not_depend_on_the_range_of_its_support():
    whole, half = (ambiguous(support_range=limits).episode("test", 5).query for limits in (None, [-5, 0]))
    assert torch.equal(whole.x, half.x)
    assert torch.equal(whole.y, half.y)


def test_the_source_with_noise_has_the_bayes_predictor_and_the_one_without_has_none():
    assert isinstance(ambiguous(), Ambiguous)
    assert not isinstance(ambiguous(noise=0.0), Ambiguous)
    assert not isinstance(ambiguous(noise=0.005), Ambiguous)


def test_the_bayes_predictor_is_calibrated_and_better_than_the_truth_is_not_to_be_had():
    """Its 90 % interval covers 90 % of 2,400 queries, and the true function with the true noise has a lower likelihood loss."""
    source = ambiguous(shots=2, queries=20)
    covered, losses, best = [], [], []
    for index in range(120):
        support, query = source.episode("test", index)
        predicted = source.posterior(support, query.x)
        covered.append(coverage(predicted, query.y))
        losses.append(nll(predicted, query.y))
        truth = source.curve("test", index, query.x)
        best.append(nll(predicted._replace(means=truth[None, None], log_priors=None), query.y))
        assert mean(predicted).shape == query.y.shape
    assert float(torch.stack(covered).mean()) == pytest.approx(0.9, abs=0.03)
    assert float(torch.stack(best).mean()) < float(torch.stack(losses).mean())


def test_bad_arguments_are_told_in_a_sentence():
    with pytest.raises(UserError, match=r"task\.noise=-1\.0 must not be negative"):
        ambiguous(noise=-1.0)
    for limits in ([0, -5], [-6, 0], [1, 1], [-5, 0, 5]):
        with pytest.raises(UserError, match=r"task\.support_range=\[.*\] must be two numbers in \[-5, 5\]"):
            ambiguous(support_range=limits)
    with pytest.raises(UserError, match=r"task\.shot is not a key of this task"):
        ambiguous(shot=3)
