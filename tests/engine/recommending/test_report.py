"""The part `ratings` of a report: figures over users, differences in pairs, and full rankings."""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path

import pytest
import torch

from metarun.engine.averages import interval
from metarun.engine.evaluation import evaluate
from metarun.engine.recommending.baselines import biases_of
from metarun.engine.recommending.report import logged, rating_figures
from metarun.objectives import REGRESSION
from metarun.tasks.ratings import RatingTasks, ratings
from metarun.tasks.sinusoid import sinusoid


class ByColumn:
    """Answers with the column before the last one of x. It never adapts."""

    objective = REGRESSION

    def adapt(self, params, state, support, key, *, training: bool = False):
        return support.y.mean(dim=0)

    def predict(self, adapted, x, mask=None):
        return x[:, -2:][:, :1]


@functools.cache
def source(**keys) -> RatingTasks:
    return ratings(**{"made_users": 60, "made_items": 90, "shots": 3, "queries": 5, "item_ids": False, **keys})


def true_outputs() -> torch.Tensor:
    return source().batch("test", torch.arange(6)).query.y[..., 0]


def test_a_model_that_knows_the_ratings_has_no_error_and_the_best_order():
    figures, _ = rating_figures(source(), "test", true_outputs())
    assert figures["model"]["mae"]["mean"] == pytest.approx(0, abs=1e-6)
    assert figures["model"]["rmse"]["mean"] == pytest.approx(0, abs=1e-6)
    assert [figures["model"][f"ndcg@{k}"]["mean"] for k in (1, 3, 5)] == pytest.approx([1, 1, 1], abs=1e-6)


def test_errors_are_those_of_hand_and_every_interval_is_over_users():
    """The outputs 0 stand for the mean rating of the training, which is also the baseline of the global mean."""
    found = source()
    figures, by_episode = rating_figures(found, "test", torch.zeros(6, 5))
    rated = found.rated("test", torch.arange(6))
    error = (rated.query_rating - found.training_ratings().rating.mean()).abs()
    assert figures["model"]["mae"]["mean"] == pytest.approx(float(error.mean()))
    assert figures["model"]["mae"]["ci95"] == pytest.approx(interval(error.mean(dim=1)))
    assert figures["model"]["rmse"]["mean"] == pytest.approx(float(error.square().mean(dim=1).sqrt().mean()))
    for metric in ("mae", "rmse", "ndcg@1", "ndcg@3"):
        assert figures["baselines"]["global_mean"][metric] == pytest.approx(figures["model"][metric])
    assert by_episode["user"] == [found.data.users.names[user] for user in rated.user.tolist()]
    assert by_episode["mae"] == pytest.approx(error.mean(dim=1).tolist())


def test_two_episodes_of_a_user_count_as_one_user():
    count = source().population("test")
    once, _ = rating_figures(source(), "test", torch.zeros(count, 5))
    twice, by_episode = rating_figures(source(), "test", torch.zeros(2 * count, 5))
    assert once["users"] == twice["users"] == twice["model"]["mae"]["users"] == count
    halves = torch.tensor(by_episode["mae"], dtype=torch.float64).reshape(2, count).mean(dim=0)
    assert twice["model"]["mae"]["ci95"] == pytest.approx(interval(halves))


def test_differences_are_of_pairs():
    figures, by_episode = rating_figures(source(), "test", torch.zeros(6, 5))
    own, bias = (torch.tensor(by_episode[name], dtype=torch.float64) for name in ("mae", "mae of item_user_bias"))
    assert figures["minus_item_user_bias"]["mae"]["mean"] == pytest.approx(float((own - bias).mean()))
    assert figures["minus_item_user_bias"]["mae"]["ci95"] == pytest.approx(interval(own - bias))
    assert float(bias.mean()) == pytest.approx(figures["baselines"]["item_user_bias"]["mae"]["mean"])


def test_predictions_are_cut_to_the_scale_for_errors_and_not_for_rankings():
    true = true_outputs()
    figures, _ = rating_figures(source(), "test", torch.where(true > 0, 50.0, -50.0) + true)
    rated = source().rated("test", torch.arange(6)).query_rating
    assert figures["model"]["mae"]["mean"] == pytest.approx(float(torch.where(true > 0, 5.0 - rated, rated - 1.0).mean()))
    assert figures["model"]["ndcg@5"]["mean"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_output_that_is_not_finite_is_an_infinite_error(value: float):
    broken = torch.zeros(6, 5)
    broken[2, 1] = value
    figures, by_episode = rating_figures(source(), "test", broken)
    assert figures["model"]["mae"]["mean"] == math.inf
    assert by_episode["mae"][2] == math.inf
    assert math.isfinite(figures["model"]["ndcg@3"]["mean"])


def test_a_query_with_padding_is_scored_on_its_real_rows():
    found = source(queries="rest")
    rated = found.rated("test", torch.arange(4))
    figures, by_episode = rating_figures(found, "test", torch.zeros(4, rated.query.shape[1]))
    mean = found.training_ratings().rating.mean()
    by_hand = [float((row[row.isfinite()] - mean).abs().mean()) for row in rated.query_rating]
    assert (rated.query < 0).any()
    assert by_episode["mae"] == pytest.approx(by_hand)
    assert figures["users"] == 4


def test_an_evaluation_ranks_all_candidates_by_the_outputs_of_the_model():
    """The model's output is the column of the item's bias, so an item's rank is the number of candidates with a higher bias, plus one."""
    found = source(item_bias=True, relevant=3.0)
    assert [column.name for column in found.columns()][-2:] == ["item bias", "item count"]
    report = evaluate(ByColumn(), {}, {}, found, split="test", episodes=6, rankings=True)
    assert report.ratings is not None
    assert report.ratings["relevant_from"] == 3.0
    bias = torch.from_numpy(found.statistics.bias)
    rated, allowed = found.rated("test", torch.arange(6)), found.candidates("test", torch.arange(6))
    for row in range(6):
        relevant = rated.query[row][rated.query_rating[row] >= 3.0]
        ranks = [1 + int((bias[allowed[row]] > bias[item]).sum()) for item in relevant]
        for k in (5, 10, 20):
            assert report.rating_scores[f"hit@{k}"][row] == float(min(ranks) <= k)
            assert report.rating_scores[f"mrr@{k}"][row] == pytest.approx(1 / min(ranks) if min(ranks) <= k else 0)
            assert report.rating_scores[f"recall@{k}"][row] == pytest.approx(sum(rank <= k for rank in ranks) / len(ranks))


def test_a_validation_ranks_no_catalogue_and_logs_the_figures():
    report = evaluate(ByColumn(), {}, {}, source(), split="val", episodes=4)
    assert report.ratings is not None
    assert report.ratings["relevant_from"] is None
    metrics = ("mae", "rmse", "ndcg@1", "ndcg@3", "ndcg@5")
    assert set(logged(report.ratings)) == {name for metric in metrics for name in (metric, f"{metric}_minus_item_user_bias")}


def test_a_source_without_ratings_has_no_such_part():
    assert evaluate(ByColumn(), {}, {}, sinusoid(queries=3), split="val", episodes=2).ratings is None


@pytest.mark.skipif(not os.environ.get("METARUN_DATA"), reason="needs movielens/ml-latest-small in METARUN_DATA")
def test_the_bias_baseline_agrees_with_an_independent_computation_on_movielens_small():
    """Over ten folds that computation has 5-shot MAE 0.748 ± 0.024 and nDCG@3 0.737. One fold has a tenth of the users."""
    path = Path(os.environ["METARUN_DATA"]) / "movielens" / "ml-latest-small"
    found = ratings(path=str(path), min_ratings=13, max_ratings=100, folds=10, fold=0, shots=5, queries=10)
    figures, _ = rating_figures(found, "test", torch.zeros(found.population("test"), 10))
    bias = figures["baselines"]["item_user_bias"]
    assert bias["mae"]["mean"] == pytest.approx(0.748, abs=0.08)
    assert bias["ndcg@3"]["mean"] == pytest.approx(0.737, abs=0.08)
    assert bias["mae"]["mean"] < figures["baselines"]["support_mean"]["mae"]["mean"] < figures["baselines"]["global_mean"]["mae"]["mean"]
    assert biases_of(found).chosen
