"""The text of the part `ratings` of a report."""

from __future__ import annotations

import math

import pytest

from metarun.commands.rating_lines import over_runs, phrase, table


def figure(value: float, half: float = 0.01) -> dict[str, float]:
    return {"mean": value, "ci95": half, "users": 40}


def part(mae: float = 0.7):
    ranked = {"ndcg@3": figure(0.6)}
    return {
        "users": 40,
        "scale": [1, 5],
        "model": {"mae": figure(mae), "ndcg@3": figure(0.75, math.nan)},
        "baselines": {
            "item_user_bias": {"mae": figure(0.72), "ndcg@3": figure(0.74)},
            "global_mean": {"mae": figure(0.9), **ranked},
            "random_order": ranked,
        },
        "minus_item_user_bias": {"mae": figure(mae - 0.72, 0.004), "ndcg@3": figure(0.01)},
    }


def test_the_phrase_names_the_errors_of_model_and_baseline_and_their_difference():
    assert phrase(part()) == (
        "; ratings of 40 users: MAE 0.700 ± 0.010, nDCG@3 0.750 (item + user bias: MAE 0.720 ± 0.010, nDCG@3 0.740 ± 0.010; paired "
        "difference of the MAE -0.020 ± 0.004)"
    )


def test_the_table_has_a_row_for_the_model_each_baseline_and_the_difference():
    assert table(part()) == [
        "                          MAE             nDCG@3",
        "model                     0.700 ± 0.010   0.750",
        "item + user bias          0.720 ± 0.010   0.740 ± 0.010",
        "global mean               0.900 ± 0.010   0.600 ± 0.010",
        "random order                              0.600 ± 0.010",
        "model - item + user bias  -0.020 ± 0.004  +0.010 ± 0.010",
    ]


def test_over_runs_the_means_of_the_runs_are_averaged():
    joined = over_runs([part(0.7), part(0.8), part(0.9)])
    assert joined is not None
    assert joined["model"]["mae"]["mean"] == pytest.approx(0.8)
    assert joined["model"]["mae"]["ci95"] == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-5)
    assert joined["baselines"]["item_user_bias"]["mae"]["ci95"] == pytest.approx(0)
    assert joined["scale"] == [1, 5]


def test_runs_without_ratings_have_no_such_part():
    assert over_runs([None, None]) is None
    assert over_runs([part(), None]) is None


def test_a_table_wider_than_the_terminal_is_cut_into_several():
    assert table(part(), 60) == table(part())
    assert table(part(), 48) == [
        "                          MAE",
        "model                     0.700 ± 0.010",
        "item + user bias          0.720 ± 0.010",
        "global mean               0.900 ± 0.010",
        "random order",
        "model - item + user bias  -0.020 ± 0.004",
        "",
        "                          nDCG@3",
        "model                     0.750",
        "item + user bias          0.740 ± 0.010",
        "global mean               0.600 ± 0.010",
        "random order              0.600 ± 0.010",
        "model - item + user bias  +0.010 ± 0.010",
    ]


def test_a_metric_without_a_value_has_empty_cells_and_a_line_that_says_why():
    figures = part()
    nothing = figure(math.nan, math.nan)
    figures["relevant_from"] = 4
    for each in (figures["model"], figures["baselines"]["item_user_bias"], figures["minus_item_user_bias"]):
        each["hit@10"] = nothing
    lines = table(figures)
    assert not any("nan" in line for line in lines)
    assert lines[-1] == "no value for Hit@10: no query has a rating of 4 or more (task.relevant), on a scale from 1 to 5"
