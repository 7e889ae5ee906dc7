"""Dictionaries of tensors, and the report of a loss."""

from __future__ import annotations

import torch

from metarun.types import Aux, constant, part_of, prefixed


def test_a_part_of_the_parameters_loses_its_prefix_and_gets_it_back():
    tensors = {"cell.bias": torch.zeros(1), "head.bias": torch.ones(1), "my.cell.bias": torch.ones(2)}
    part = part_of(tensors, "cell.")
    assert list(part) == ["bias"]
    assert prefixed("cell.", part) == {"cell.bias": tensors["cell.bias"]}


def test_constants_and_a_report_carry_values_without_gradients():
    weight = torch.ones(2, requires_grad=True)
    loss = (2.0 * weight).sum()
    aux = Aux.of({"loss": loss}, {"mean": 3.0 * weight})
    assert float(aux.metrics["loss"]) == 4.0
    assert aux.state["mean"].tolist() == [3.0, 3.0]
    assert not any(value.requires_grad for value in (*aux.metrics.values(), *aux.state.values(), *constant({"w": weight}).values()))
