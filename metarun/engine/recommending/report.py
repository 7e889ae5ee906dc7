"""The part `ratings` of a report: the scores of a model and of the baselines over users, and the paired differences.

A score is first averaged over the episodes of each user, and then over users. Every interval is over users. Predictions are cut to the
scale of the ratings before their errors are taken; rankings use them as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from metarun.engine.averages import interval, mean, worst
from metarun.engine.outputs import OfChunks
from metarun.engine.recommending.baselines import BIAS, PREDICT_RATINGS, Biases, biases_of
from metarun.engine.recommending.rankings import NDCG_CUTS, gains, ndcg, retrieval
from metarun.engine.report import Report
from metarun.functional import map_tasks
from metarun.types import Episode, Params, Rated, State, WithRatings

MODEL = "model"
BLOCK = 1024
"""Items that a model scores at once."""
ERRORS = ("mae", "rmse")

Scores = dict[str, Tensor]
"""Metric -> its value in each episode, (T,) float64; NaN where an episode has none."""


class CatalogueScores(OfChunks):
    """The outputs for all items, for the users of a chunk of episodes."""

    def __call__(self, shared: tuple[Params, State, Tensor], chunk: tuple[Episode, Tensor]) -> dict[str, Tensor]:
        """Return the outputs (T, I) for all items. shared: params, state and the columns of each item (I, C)."""
        params, state, items = shared

        def one(episode: Episode, key: Tensor) -> dict[str, Tensor]:
            adapted = self.algorithm.adapt(params, state, episode.support, key)
            own = episode.query.x[0, : episode.query.x.shape[1] - items.shape[1]]
            rows = (torch.cat([own.expand(len(block), -1), block], dim=1) for block in items.split(BLOCK))
            return {"catalogue": torch.cat([self.algorithm.predict(adapted, x)[:, 0] for x in rows])}

        outputs: dict[str, Tensor] = map_tasks(one, *chunk)
        return outputs


def rating_figures(
    source: WithRatings, split: str, outputs: Tensor, catalogue: Tensor | None = None
) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Return the part `ratings` of a report, and the scores of each episode by the names of the columns of a CSV file.

    outputs: (T, Q) of the model for the queries of the first T episodes. catalogue: (T, I) for all items; None for no full rankings.
    """
    indices = torch.arange(len(outputs))
    rated, biases = source.rated(split, indices), biases_of(source)
    predicted = {MODEL: rated.offset + source.unit() * outputs.double(), **biases.predictions(rated)}
    scores = {name: _scores(name, values, rated, source.scale()) for name, values in predicted.items()}
    if catalogue is not None:
        allowed = source.candidates(split, indices)
        relevant = rated.query_rating >= source.least_relevant()
        orders = {MODEL: source.item_offsets() + source.unit() * catalogue.double(), **biases.orders()}
        for name, order in orders.items():
            scores[name] |= retrieval(order.expand(len(outputs), -1), rated.query, relevant, allowed)
    return _summary(source, rated, scores, biases, catalogue is not None), _by_episode(source, rated, scores)


def with_ratings(report: Report, source: WithRatings, split: str, outputs: Tensor, catalogue: Tensor | None) -> Report:
    """Return the report with the figures of `rating_figures`."""
    figures, by_episode = rating_figures(source, split, outputs, catalogue)
    return replace(report, ratings=figures, rating_scores=by_episode)


def _scores(name: str, predicted: Tensor, rated: Rated, scale: tuple[float, float]) -> Scores:
    """Return the scores of predictions (T, Q) on the queries alone."""
    real = rated.query >= 0
    found: Scores = {}
    if name == MODEL or name in PREDICT_RATINGS:
        sound = torch.where(predicted.isfinite(), predicted.clamp(*scale), torch.inf)
        error = torch.where(real, worst((sound - rated.query_rating).abs()), 0.0)
        count = real.sum(dim=1)
        found = {"mae": error.sum(dim=1) / count, "rmse": (error.square().sum(dim=1) / count).sqrt()}
    return found | ndcg(predicted, gains(rated.query_rating.nan_to_num(scale[0]), scale), real)


def _summary(source: WithRatings, rated: Rated, scores: Mapping[str, Scores], biases: Biases, ranked: bool) -> dict[str, Any]:
    users, place = rated.user.unique(return_inverse=True)
    by_user = {name: {metric: _over(values, place, len(users)) for metric, values in each.items()} for name, each in scores.items()}
    told = {name: {metric: _figure(values) for metric, values in each.items()} for name, each in by_user.items()}
    difference = {metric: _figure(values - by_user[BIAS][metric]) for metric, values in by_user[MODEL].items() if metric in by_user[BIAS]}
    return {
        "users": len(users),
        "scale": list(source.scale()),
        "relevant_from": source.least_relevant() if ranked else None,
        "model": told.pop(MODEL),
        "baselines": told,
        "minus_item_user_bias": difference,
        "shrinkage": {**biases.shrinkage, "chosen_on_validation_users": biases.chosen},
    }


def _over(values: Tensor, place: Tensor, users: int) -> Tensor:
    """Return the mean over the episodes of each user that have a value, (U,); NaN for a user without one."""
    has = ~values.isnan()
    sums = torch.zeros(users, dtype=torch.float64).index_add_(0, place, torch.where(has, values, 0.0))
    return sums / torch.zeros(users, dtype=torch.float64).index_add_(0, place, has.double())


def _figure(values: Tensor) -> dict[str, float]:
    """Return the mean over the users with a value, half its 95 % interval, and the number of these users."""
    known = values[~values.isnan()]
    return {"mean": mean(known), "ci95": interval(known), "users": len(known)}


def _by_episode(source: WithRatings, rated: Rated, scores: Mapping[str, Scores]) -> dict[str, list[Any]]:
    names = source.user_names()
    found: dict[str, list[Any]] = {"user": [names[user] for user in rated.user.tolist()]}
    for metric, values in scores[MODEL].items():
        found[metric] = values.tolist()
        if metric in (*ERRORS, *(f"ndcg@{k}" for k in NDCG_CUTS)):
            found[f"{metric} of item_user_bias"] = scores[BIAS][metric].tolist()
    return found


def logged(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return the values of a validation for the log, by name."""
    values = {metric: each["mean"] for metric, each in figures["model"].items()}
    return values | {f"{metric}_minus_item_user_bias": each["mean"] for metric, each in figures["minus_item_user_bias"].items()}
