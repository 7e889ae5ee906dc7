"""Dictionaries of tensors, the report of a loss, and the traits of an algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from metarun.types import Aux, Traits, adapts_backbone, constant, part_of, prefixed, traits_of


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


@dataclass(frozen=True)
class Tuning:
    """Adapts the backbone where its field says so."""

    tune_all: bool
    traits: ClassVar[Traits] = Traits(head=False, adapts_backbone="tune_all")


def test_traits_are_those_that_a_class_declares_or_the_defaults():
    assert not traits_of(Tuning).head
    assert traits_of(Tuning(True)) is Tuning.traits
    assert traits_of(object()) == Traits()
    assert traits_of(dict).head


def test_a_field_may_decide_whether_the_backbone_adapts():
    assert [adapts_backbone(Tuning(answer)) for answer in (True, False)] == [True, False]
    assert adapts_backbone(object())
