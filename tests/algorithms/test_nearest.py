"""Nearest neighbour against a loop over pixels."""

from __future__ import annotations

from pathlib import Path

import torch
from small import Double, few_shot, run_engine

from metarun import draws, testing
from metarun.algorithms.nearest import Nearest
from metarun.engine.evaluation import evaluate
from metarun.objectives import CLASSIFICATION
from metarun.types import Examples

KEY = draws.key(0)


def test_the_logit_of_a_class_is_minus_the_squared_distance_to_its_nearest_example():
    support, query = testing.double(few_shot(shots=3).episode("test", 0))
    logits = Nearest(CLASSIFICATION).predict(support, query.x)
    for i, x in enumerate(query.x):
        for n in range(3):
            nearest = min(float((x - s).square().sum()) for s, label in zip(support.x, support.y, strict=True) if label[n] == 1)
            assert abs(float(logits[i, n]) + nearest) < 1e-9


def test_an_example_is_its_own_nearest_neighbour():
    support = few_shot(shots=2).episode("test", 1).support
    assert torch.equal(Nearest(CLASSIFICATION).predict(support, support.x).argmax(dim=1), support.y.argmax(dim=1))


def test_padding_rows_are_nobodys_neighbour_and_an_absent_class_is_never_chosen():
    x = torch.tensor([[0.0], [1.0], [0.4], [0.4]])
    y = torch.eye(3)[[0, 1, 0, 2]]
    support = Examples(x, y, torch.tensor([True, True, False, False]))
    logits = Nearest(CLASSIFICATION).predict(support, torch.tensor([[0.4]]))
    torch.testing.assert_close(logits, torch.tensor([[-0.16, -0.36, -1e9]]))


def test_it_beats_chance_where_classes_look_alike_and_needs_no_step(tmp_path: Path):
    source = few_shot(shots=5)
    run = run_engine(tmp_path, Nearest(CLASSIFICATION), source, steps=0)
    assert run.position.params == {}
    report = evaluate(Nearest(CLASSIFICATION), {}, {}, Double(source), split="test", episodes=10)
    assert report.mean > 0.9


def test_the_outer_loop_may_step_without_parameters(tmp_path: Path):
    run = run_engine(tmp_path, Nearest(CLASSIFICATION), few_shot(), steps=2)
    assert run.position.step == 2
    assert [line["train/gradient_norm"] for line in run.lines if "train/loss" in line] == [0.0, 0.0]
