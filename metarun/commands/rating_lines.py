"""The part `ratings` of a report as text: a phrase for the line of the result, and a table of the model and the baselines below it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from metarun.engine.averages import interval, mean
from metarun.errors import counted

NAMES = {
    "model": "model",
    "item_user_bias": "item + user bias",
    "item_bias": "item bias",
    "support_mean": "support mean",
    "global_mean": "global mean",
    "popularity": "popularity",
    "random_order": "random order",
}
"""The predictions in the order of the table, with their names for a person."""
DIFFERENCE = "model - item + user bias"
SHOWN = {
    "mae": "MAE",
    "rmse": "RMSE",
    "ndcg@1": "nDCG@1",
    "ndcg@3": "nDCG@3",
    "ndcg@5": "nDCG@5",
    "recall@10": "Recall@10",
    "hit@10": "Hit@10",
    "mrr@10": "MRR@10",
}
"""The metrics of the table; report.json has all of them."""
SHORT = ("mae", "ndcg@3")
"""The metrics of the phrase."""


def phrase(ratings: Mapping[str, Any]) -> str:
    """Return the errors of the model and of the bias baseline, such as "; ratings: MAE 0.71 ± 0.03, nDCG@3 0.74 ± 0.02 (item + …)"."""
    own, bias = (_named(figures) for figures in (ratings["model"], ratings["baselines"]["item_user_bias"]))
    least = ratings["minus_item_user_bias"]["mae"]
    beside = f"{NAMES['item_user_bias']}: {bias}; paired difference of the MAE {_cell(least, sign='+')}"
    return f"; ratings of {counted(ratings['users'], 'user')}: {own} ({beside})"


def table(ratings: Mapping[str, Any] | None, width: int | None = None) -> list[str]:
    """Return the lines of the table: a row for the model, for each baseline, and for the paired differences; none without ratings.

    width: of the terminal, in columns; a wider table is cut into several, one below the other. None for no limit.
    """
    if ratings is None:
        return []
    figures = {"model": ratings["model"], **ratings["baselines"]}
    known = [name for name in NAMES if name in figures]
    first = _column(["", *(NAMES[name] for name in known), DIFFERENCE])
    blocks, room = list[list[list[str]]](), 0.0
    for metric in SHOWN:
        if metric in ratings["model"]:
            cells = [_cell(figures[name].get(metric)) for name in known]
            column = _column([SHOWN[metric], *cells, _cell(ratings["minus_item_user_bias"].get(metric), sign="+")])
            needed = len(column[0]) + 2
            if not blocks or needed > room:
                blocks.append([first])
                room = math.inf if width is None else width - len(first[0])
            blocks[-1].append(column)
            room -= needed
    tables = [["  ".join(row).rstrip() for row in zip(*block, strict=True)] for block in blocks]
    return [line for number, lines in enumerate(tables) for line in ([""] if number else []) + lines] + _empty(ratings)


def _empty(ratings: Mapping[str, Any]) -> list[str]:
    """Return the line that says why metrics have no value."""
    empty = [SHOWN[metric] for metric, figure in ratings["model"].items() if metric in SHOWN and math.isnan(figure["mean"])]
    if not empty:
        return []
    low, high = ratings["scale"]
    relevant = f"{ratings['relevant_from']:g} or more (task.relevant), on a scale from {low:g} to {high:g}"
    return [f"no value for {', '.join(empty)}: no query has a rating of {relevant}"]


def _column(cells: list[str]) -> list[str]:
    """Return the cells in one width."""
    width = max(map(len, cells))
    return [cell.ljust(width) for cell in cells]


def over_runs(parts: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Return the part `ratings` over runs: the means of the runs' means, with half their interval over the runs; None without the part."""
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None

    def joined(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        if "mean" not in each[0]:
            return {name: joined([one[name] for one in each]) for name in each[0]}
        values = torch.tensor([one["mean"] for one in each], dtype=torch.float64)
        return {"mean": mean(values), "ci95": interval(values), "users": each[0]["users"]}

    compared = {name: joined([part[name] for part in known]) for name in ("model", "baselines", "minus_item_user_bias")}
    return {**known[0], **compared}


def _named(figures: Mapping[str, Any]) -> str:
    return ", ".join(f"{SHOWN[metric]} {_cell(figures[metric])}" for metric in SHORT)


def _cell(figure: Mapping[str, float] | None, sign: str = "") -> str:
    """Return a mean with half its interval, such as "0.712 ± 0.031"; "" where there is no value."""
    if figure is None or math.isnan(figure["mean"]):
        return ""
    half = figure["ci95"]
    return f"{figure['mean']:{sign}.3f}" + (f" ± {half:.3f}" if math.isfinite(half) else "")
