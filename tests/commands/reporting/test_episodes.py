"""The picture of sampled regressions."""

from __future__ import annotations

import torch

from metarun.commands.reporting.drawing import style
from metarun.commands.reporting.episodes import curves_chart
from metarun.commands.reporting.looking import Curve


def curve(shift: float = 0.0) -> Curve:
    x = torch.linspace(-1, 1, 9)
    return Curve(x, x, x * 0, (x + shift)[None], x - 1, x + 1, torch.tensor([[0.0, shift]]))


def test_each_model_is_a_column_and_each_task_a_row() -> None:
    with style("test"):
        figure = curves_chart({"a": {0: curve(), 1: curve()}, "b": {0: curve(), 1: curve()}}, {"a": "nll 0.5"})
    assert figure is not None
    assert len(figure.axes) == 4
    assert figure.axes[0].get_title(loc="left") == "a\nnll 0.5"


def test_a_task_that_the_models_saw_otherwise_is_left_out() -> None:
    with style("test"):
        figure = curves_chart({"a": {0: curve(), 1: curve()}, "b": {0: curve(0.5), 1: curve()}}, {})
        assert curves_chart({"a": {0: curve()}, "b": {0: curve(0.5)}}, {}) is None
    assert figure is not None
    assert len(figure.axes) == 2
