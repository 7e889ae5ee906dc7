"""The pictures with cells or panels."""

from __future__ import annotations

from typing import Any

import pytest

from metarun.commands.reporting.drawing import inline, style
from metarun.commands.reporting.panels import confusion_chart, families_chart, matrix_chart, scatter_chart


def texts(figure: Any) -> str:
    assert figure is not None
    with style("test"):
        return inline(figure)


def test_each_picture_names_its_data() -> None:
    assert "oak" in texts(confusion_chart(["oak", "elm"], [[0.9, 0.1], [None, 1.0]]))
    assert "predicted" in texts(scatter_chart({"a": ([0.0, 1.0], [0.1, 5.0]), "b": ([0.0, 1.0], [0.2, 0.8])}))
    assert "line" in texts(families_chart(["sinusoid", "line"], {"a": [(0.5, 0.1), (None, None)]}, "mse"))
    assert "after class" in texts(matrix_chart([[0.5, None], [0.4, 0.6]], [1, 2], "accuracy", "class"))


@pytest.mark.parametrize(
    "figure",
    [
        lambda: confusion_chart([], []),
        lambda: scatter_chart({"a": ([], [])}),
        lambda: families_chart([], {}, "mse"),
        lambda: matrix_chart([[None]], [1], "accuracy", "class"),
    ],
    ids=["confusion", "scatter", "families", "matrix"],
)
def test_without_data_there_is_no_picture(figure: Any) -> None:
    assert figure() is None
