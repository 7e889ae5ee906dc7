"""Predicted against true values, read back from the figure."""

from __future__ import annotations

import io
from typing import Any

import torch

from metarun.records.agreement_picture import agreement_figure


def points(axes: Any) -> dict[str, list[tuple[float, float]]]:
    return {each.get_label(): [tuple(pair) for pair in each.get_offsets().tolist()] for each in axes.collections}


def test_each_target_has_a_panel_with_the_predictions_before_and_after_adaptation() -> None:
    truth, before, after = torch.tensor([[1.0, 5.0], [2.0, 6.0]]), torch.zeros(2, 2), torch.tensor([[1.5, 5.5], [2.5, 7.0]])
    figure = agreement_figure(truth, after, before=before, names=["price", "$"], title="episode 0")
    first, second = figure.axes
    assert points(first) == {"before adaptation": [(1.0, 0.0), (2.0, 0.0)], "after adaptation": [(1.0, 1.5), (2.0, 2.5)]}
    assert points(second)["after adaptation"] == [(5.0, 5.5), (6.0, 7.0)]
    assert (first.get_xlabel(), second.get_ylabel()) == ("price, true", "$, predicted")
    figure.savefig(io.BytesIO(), format="png")


def test_values_that_are_not_finite_and_further_targets_are_left_out() -> None:
    truth = torch.arange(12.0).reshape(2, 6)
    predicted = truth.clone()
    predicted[0, 0] = torch.nan
    figure = agreement_figure(truth, predicted)
    assert len(figure.axes) == 4
    assert points(figure.axes[0]) == {"predicted": [(6.0, 6.0)]}
    assert figure.axes[0].get_xlabel() == "true"
