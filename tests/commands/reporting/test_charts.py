"""The charts of a report."""

from __future__ import annotations

import math
from typing import Any

from metarun.commands.reporting.charts import (
    Line,
    Mark,
    colors_of,
    lines_chart,
    marks_chart,
    reliability_chart,
    steps_chart,
    usual_range,
)
from metarun.commands.reporting.drawing import ACCENT, MUTED, inline, style


def svg(figure: Any) -> str:
    assert figure is not None
    with style("test"):
        return inline(figure)


def texts(figure: Any) -> str:
    return svg(figure).replace("−", "-")


def test_marks_show_each_model_in_percent() -> None:
    figure = marks_chart(
        [Mark("a", 0.9, 0.01, [0.89, 0.91], strong=True), Mark("b", None, None), Mark("c", 0.5, None)], "accuracy", baseline=0.2
    )
    drawn = texts(figure)
    assert all(f">{word}</text>" in drawn for word in ("a", "c", "accuracy (%)"))
    assert ">b</text>" not in drawn
    assert marks_chart([Mark("b", None, None)], "accuracy") is None


def test_a_value_far_beyond_the_others_is_written_at_the_edge() -> None:
    assert usual_range([(2.4, 0.5), (2.9, 0.5), (4.2, 0.5), (721.0, 1397.0)])[1] == 4.2
    assert usual_range([(2.4, 0.5), (721.0, 1397.0)])[1] == math.inf
    assert usual_range([(0.9, 0.1), (0.2, 0.1), (0.3, 0.1)])[1] == math.inf
    marks = [Mark("a", 2.4, 0.5), Mark("b", 2.9, 0.5), Mark("c", 4.2, 0.5), Mark("far", 721.0, 1397.0)]
    assert "721 →" in texts(marks_chart(marks, "mse"))


def test_the_values_of_a_line_are_those_given() -> None:
    figure = lines_chart([Line("a", [0, 10, 20], [0.1, math.nan, 0.3])], "x", "y", factor=100.0)
    assert figure is not None
    drawn = [list(map(float, line.get_ydata())) for line in figure.axes[0].lines]
    assert [10.0, 30.0] in drawn


def test_lines_of_one_group_have_one_label() -> None:
    lines = [Line(f"a {seed}", [0, 1], [seed, 2.0], "a") for seed in range(3)]
    assert texts(lines_chart(lines, "x", "y")).count(">a</text>") == 1


def test_many_groups_are_grey_but_the_first() -> None:
    found = colors_of([str(number) for number in range(9)])
    assert found["0"] == ACCENT
    assert {found[str(number)] for number in range(1, 9)} == {MUTED}
    assert len(set(colors_of("abc").values())) == 3


def test_a_line_of_one_point_is_level() -> None:
    assert lines_chart([Line("a", [0], [0.5]), Line("b", [0, 1], [0.1, 0.2])], "x", "y") is not None
    assert lines_chart([Line("a", [], [])], "x", "y") is None


def test_inner_steps_are_drawn_only_where_there_are_some() -> None:
    assert steps_chart([Line("a", [0], [0.5])], "accuracy") is None
    assert texts(steps_chart([Line("a", [0, 1, 2], [0.2, 0.5, 0.6])], "accuracy")).count(">2</text>") == 1
    assert steps_chart([Line("a", list(range(101)), [1.0 / (1 + step) for step in range(101)])], "mse") is not None


def test_the_reliability_is_drawn_where_there_are_bins() -> None:
    assert "confidence (%)" in texts(reliability_chart({"a": [(0.5, 0.4, 0.5), (0.9, 0.95, 0.5)]}))
    assert reliability_chart({"a": []}) is None
