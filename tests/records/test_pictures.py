"""Pictures: what is drawn, read back from the figures."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from figures import png, texts

from metarun.records.pictures import (
    adaptation_figure,
    curve_figure,
    families_figure,
)


def test_a_curve_is_drawn_from_left_to_right_before_and_after_each_step() -> None:
    x = torch.tensor([[1.0], [-1.0], [0.0]])
    figure = curve_figure(x, x * 2, x[:1], x[:1] * 2, [x * 0, x, x * 2], title="task 3")
    (axes,) = figure.axes
    drawn = {line.get_label(): line for line in axes.lines}
    assert list(drawn) == ["truth", "before adaptation", "after 1 step", "after 2 steps"]
    assert drawn["after 1 step"].get_xdata().tolist() == [-1.0, 0.0, 1.0]
    assert drawn["after 1 step"].get_ydata().tolist() == [-1.0, 0.0, 1.0]
    assert axes.get_title() == "task 3"
    assert png(figure).startswith(b"\x89PNG")


def test_of_many_inner_steps_a_few_curves_with_the_last_are_drawn() -> None:
    x = torch.linspace(0, 1, 5)
    labels = [line.get_label() for line in curve_figure(x, None, x, x, [x] * 101).axes[0].lines]
    assert len(labels) <= 7
    assert labels[-1] == "after 100 steps"


def test_adaptation_lines_hold_the_scores_in_percent_and_are_named_at_their_end() -> None:
    figure = adaptation_figure({"maml": [0.2, 0.93], "protonet": [0.957]}, "accuracy")
    (axes,) = figure.axes
    assert axes.lines[0].get_ydata() == pytest.approx([20.0, 93.0])
    assert set(texts(figure)) == {"maml  93.0 %", "protonet  95.7 %"}
    assert axes.get_ylabel() == "query accuracy (%)"


def test_names_at_the_ends_do_not_overlap() -> None:
    (axes,) = adaptation_figure({name: [0.1, 0.9] for name in "abcd"}, "accuracy").axes
    heights = sorted(text.xy[1] for text in axes.texts)
    low, high = axes.get_ylim()
    assert min(b - a for a, b in zip(heights, heights[1:], strict=False)) > 0.05 * (high - low)


@pytest.mark.parametrize("scores", [[3.1, 0.4], [5.0] * 101, [1.0, math.nan], [0.5]])
def test_errors_of_any_length_and_size_can_be_drawn(scores: list[float]) -> None:
    figure = adaptation_figure({"maml": scores}, "mse")
    assert figure.axes[0].get_ylabel() == "query MSE"
    assert png(figure).startswith(b"\x89PNG")


def test_the_global_state_of_matplotlib_is_not_touched() -> None:
    script = (
        "import sys, metarun.records.pictures as p\n"
        "assert 'matplotlib' not in sys.modules\n"
        "p.adaptation_figure({'a': [0.1, 0.2]}, 'accuracy')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_families_have_a_panel_each_with_the_settings_in_order():
    figure = families_figure(["a", "b"], {"one": [(0.5, 0.1), (0.9, 0.2)], "two": [(0.4, float("nan")), (0.8, 0.1)]}, "accuracy")
    first, second = figure.axes
    assert [axes.get_title() for axes in (first, second)] == ["a", "b"]
    assert [label.get_text() for label in first.get_yticklabels()] == ["one", "two"]
    assert [float(container.lines[0].get_xdata()[0]) for container in second.containers] == [90.0, 80.0]
