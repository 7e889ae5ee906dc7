"""The inner loop on a stream: the factored layer, padded examples, and parameters below the layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad
from trajectories import CLASSES, random_head

from metarun.algorithms.parts.descent import Descent, Layer
from metarun.algorithms.parts.online import head_outputs
from metarun.objectives import CLASSIFICATION, REGRESSION
from metarun.types import Params


@pytest.mark.parametrize("batch", [1, 2, 3, 10])
@pytest.mark.parametrize("kind", [CLASSIFICATION, REGRESSION], ids=["classification", "regression"])
def test_the_factored_layer_equals_gradient_descent_on_its_weights(kind: Any, batch: int):
    head, generator = random_head(), torch.Generator().manual_seed(0)
    z = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    y = torch.eye(CLASSES, dtype=torch.float64)[[0, 3, 3, 1, 2]]
    _, layer = Descent(kind, 0.3, batch).run(lambda below, rows: z[rows], {}, Layer.of(head), y, None)
    for first in range(0, 5, batch):
        rows = slice(first, first + batch)
        slopes = grad(lambda head, rows=rows: kind.loss(head_outputs(head, z[rows]), y[rows]))(head)
        head = {name: head[name] - 0.3 * slopes[name] for name in head}
    torch.testing.assert_close(layer.outputs(z), head_outputs(head, z))


@pytest.mark.parametrize("batch", [1, 2])
def test_padding_rows_change_no_step_of_the_inner_loop(batch: int):
    z = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.eye(CLASSES, dtype=torch.float64)[[0, 3, 1, 2]]
    real = torch.tensor([True, False, True, True])
    padded = Descent(CLASSIFICATION, 0.3, batch).run(lambda below, rows: z[rows], {}, Layer.of(random_head()), y, real)[1]
    plain = Descent(CLASSIFICATION, 0.3, batch).run(lambda below, rows: z[real][rows], {}, Layer.of(random_head()), y[real], None)[1]
    torch.testing.assert_close(padded.outputs(z), plain.outputs(z))


def test_parameters_below_the_layer_take_the_same_steps_as_those_of_gradient_descent():
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.eye(CLASSES, dtype=torch.float64)[[0, 3, 1]]
    params = {f"head.{name}": value for name, value in random_head().items()} | {"below": torch.linspace(0.5, 1.5, 4, dtype=torch.float64)}

    def outputs(params: Params, z: Tensor) -> Tensor:
        return F.linear(torch.tanh(z * params["below"]), params["head.weight"], params["head.bias"])

    below, layer = Descent(CLASSIFICATION, 0.3).run(
        lambda below, rows: torch.tanh(z[rows] * below["below"]), {"below": params["below"]}, Layer.of(random_head()), y, None
    )
    for row, label in zip(z, y, strict=True):
        slopes = grad(lambda params, row=row, label=label: F.cross_entropy(outputs(params, row[None]), label[None]))(params)
        params = {name: params[name] - 0.3 * slopes[name] for name in params}
    torch.testing.assert_close(below["below"], params["below"])
    torch.testing.assert_close(layer.outputs(torch.tanh(z * below["below"])), outputs(params, z))
