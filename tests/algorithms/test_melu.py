"""MeLU is an option of maml.py. These tests hold its own claims: which weights adapt, and which gradient the embeddings get."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import composed
from small_ratings import Tastes, taste_network
from torch import Tensor

from metarun import testing
from metarun.algorithms.maml import Maml
from metarun.commands.train import train
from metarun.objectives import REGRESSION
from metarun.records import checkpoint
from metarun.types import Params
from metarun.wiring.instantiate import instantiate

TABLE = "body.embeddings.table"


def melu(**options: Any) -> Maml:
    node = {key: value for key, value in composed("algo=melu")["algo"].items() if key != "recipe"}
    algorithm = instantiate(node, name="algo", network=taste_network(), objective=REGRESSION)
    assert isinstance(algorithm, Maml)
    return replace(algorithm, **options)


def meta_gradient(algorithm: Maml, params: Params) -> Params:
    batch, keys = testing.first_episodes(Tastes(), 3)
    return testing.gradients_of(algorithm, params, {}, batch, keys, torch.tensor(0))[0]


def summed_loss(algorithm: Maml, params: Params) -> Tensor:
    batch, keys = testing.first_episodes(Tastes(), 3)
    return testing.gradients_of(algorithm, params, {}, batch, keys, torch.tensor(0))[1].sum()


def test_the_meta_gradient_equals_finite_differences():
    """Of the embeddings too: L(θ₁, θ₂', query) depends on θ₁ directly and through θ₂'."""
    algorithm = melu(inner_lr=0.3, inner_steps=2)
    params, _ = testing.start(algorithm)
    found = meta_gradient(algorithm, params)
    generator = torch.Generator().manual_seed(0)
    for name, value in params.items():
        direction = torch.randn(value.shape, generator=generator, dtype=value.dtype)
        ahead, behind = (summed_loss(algorithm, {**params, name: value + sign * 1e-5 * direction}) for sign in (1, -1))
        assert float((found[name] * direction).sum()) == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-6, abs=1e-9)


def test_the_first_order_gradient_of_the_embeddings_is_another_one():
    """It lacks the path from the embeddings through the inner gradient."""
    second, first = melu(inner_lr=0.3), melu(inner_lr=0.3, first_order=True)
    params, _ = testing.start(second)
    both = [meta_gradient(algorithm, params)[TABLE] for algorithm in (second, first)]
    assert float((both[0] - both[1]).abs().max()) > 1e-3 * float(both[0].abs().max())


def test_the_inner_loop_changes_the_decision_layers_and_no_embedding():
    algorithm = melu(inner_lr=0.3)
    params, state = testing.start(algorithm)
    support = testing.double(Tastes().episode("train", 0)).support
    adapted = algorithm.adapt(params, state, support, torch.tensor(0)).params
    changed = {name for name, value in params.items() if not torch.equal(adapted[name], value)}
    assert changed == set(params) - {TABLE}


def test_the_contract_holds_on_users_with_categories():
    testing.check_algorithm(melu(inner_lr=0.3, inner_steps=2), Tastes())


def test_the_defaults_are_those_of_the_released_code():
    config = composed("algo=melu", "backbone=embeddings")
    assert (config["algo"]["inner_lr"], config["algo"]["inner_steps"], config["algo"]["first_order"]) == (5e-6, 1, False)
    assert (config["optimizer"]["lr"], config["tasks_per_step"]) == (5e-5, 32)
    assert (config["backbone"]["dimension"], config["backbone"]["widths"]) == (32, [64, 64])


def test_a_resumed_run_and_a_second_run_have_the_bits_of_the_first(tmp_path: Path):
    sizes = (
        "task.made_users=30",
        "task.made_items=40",
        "task.queries=3",
        "backbone.dimension=4",
        "backbone.widths=[8]",
        "algo.inner_lr=0.1",
    )
    short = ("algo.inner_lr=0.1", "tasks_per_step=2", "eval_every=2", "eval_episodes=2", "logger=jsonl", "device=cpu", "device.threads=1")

    def config(steps: int) -> dict[str, Any]:
        return composed("algo=melu", "task=ratings", "backbone=embeddings", *sizes, *short, f"steps={steps}")

    train(config(4), tmp_path / "whole")
    train(config(2), tmp_path / "parts")
    train({"resume": str(tmp_path / "parts"), "overrides": {"steps": 4}, "groups": {}}, tmp_path / "parts")
    whole, parts = (checkpoint.load(tmp_path / name / "checkpoints/last.pt") for name in ("whole", "parts"))
    for part in ("step", "params", "state", "optimizer", "best"):
        testing.assert_same(getattr(parts, part), getattr(whole, part), f"{part} of the resumed run", tolerance=0.0)
    train(config(4), tmp_path / "again")
    again = checkpoint.load(tmp_path / "again/checkpoints/last.pt")
    testing.assert_same(again.params, whole.params, "the parameters of a second run", tolerance=0.0)
