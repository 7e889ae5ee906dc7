"""The network of a config: which parts are the user's, and what of a user's backbone reaches parameters and state."""

from __future__ import annotations

import dataclasses
from typing import Any

import own_modules
import pytest
import torch
from small import algorithm_of, composed, few_shot
from torch import nn

from metarun import draws
from metarun.algorithms.reptile import Reptile
from metarun.backbones.classifier import Classifier
from metarun.engine.evaluation import TaskScores
from metarun.engine.training import gradients_of
from metarun.episodes import deal
from metarun.network import Network
from metarun.objectives import objective
from metarun.records import checkpoint
from metarun.records.checkpoint import Checkpoint
from metarun.types import traits_of
from metarun.wiring.backbones import build_network, is_own
from metarun.wiring.build import warm_start

EPISODES = {split: few_shot(ways=2).episode(split, 0) for split in ("train", "val")}


def network_of(module: own_modules.Module, seed: int = 0, head: bool = True) -> Network:
    own_modules.CURRENT[:] = [module]
    config = {"backbone": {"_target_": "own_modules.current", "norm": "batch"}, "task": {}, "seed": seed}
    return build_network(config, EPISODES, head=head, algorithm="Mine")


def test_own_code_is_found_at_any_depth_of_a_config() -> None:
    shipped = {"_target_": "metarun.backbones.mlp.Mlp"}
    assert not is_own(shipped)
    assert not is_own({"widths": [4, None], "text": "mine.Module"})
    assert is_own({"_target_": "mine.Module"})
    assert is_own({**shipped, "parts": [{"of": {"_target_": "torch.nn.Tanh"}}]})


def test_frozen_parameters_and_buffers_are_state_and_no_parameters() -> None:
    def module() -> nn.Module:
        made = own_modules.Embedding(own_modules.Projection(), out_features=6)
        made.stem.requires_grad_(False)
        return made

    params, state = network_of(module).init()
    assert set(params) == {"head.weight", "head.bias"}
    assert set(state) == {f"frozen.body.stem.{name}" for name in ("weight", "bias")} | {
        f"buffer.body.parts.0.{name}" for name in ("features", "order")
    }
    other = network_of(module, seed=1).init()[1]
    assert not torch.equal(state["buffer.body.parts.0.features"], other["buffer.body.parts.0.features"])


@pytest.mark.parametrize("frozen", [True, False])
def test_the_outputs_depend_on_the_state_and_not_on_the_modules_own_tensors(frozen: bool) -> None:
    """So that an evaluation uses the tensors of the checkpoint, and each member of an ensemble its own."""
    network = network_of(own_modules.frozen_stem if frozen else own_modules.random_projection, head=False)
    params, state = network.init()
    support = EPISODES["train"].support
    before = network.on_support(params, state, support, training=False)
    with torch.no_grad():
        for value in (*network.module.parameters(), *network.module.buffers()):
            if value.is_floating_point():
                value.add_(1.0)
    assert torch.equal(network.on_support(params, state, support, training=False), before)
    changed = {name: value + 1.0 if value.is_floating_point() and "running" not in name else value for name, value in state.items()}
    assert not torch.equal(network.on_support(params, changed, support, training=False), before)
    fitted = network.fit(params, changed, support, training=False)
    assert not torch.equal(network.on_query(fitted, support.x)[0], before)


def test_reptile_computes_with_the_fixed_tensors() -> None:
    network = network_of(own_modules.frozen_stem)
    reptile = Reptile(network, objective("classification"), inner_steps=2, inner_batch=4)
    params, state = reptile.init(draws.key(0))
    batch, keys = deal(few_shot(ways=2), "train", torch.arange(2)), draws.key(0, torch.arange(2))
    gradients = gradients_of(reptile, params, state, batch, keys, torch.tensor(0))[0]
    assert "body.stem.weight" not in gradients
    assert gradients["body.parts.2.weight"].abs().max() > 0


def test_loaded_statistics_start_the_running_ones() -> None:
    def pretrained() -> nn.Module:
        made = own_modules.Embedding(nn.BatchNorm2d(4, momentum=None))
        made.load_state_dict({"parts.0.running_mean": torch.arange(4.0), "parts.0.num_batches_tracked": torch.tensor(3)}, strict=False)
        return made

    network = network_of(pretrained, head=False)
    state = network.init()[1]
    assert state["running.parts.0.mean"].tolist() == [0.0, 1.0, 2.0, 3.0]
    seen = {"parts.0.mean": torch.full((2, 4), 8.0), "parts.0.var": torch.full((2, 4), 5.0)}
    after = network.update_running(state, seen)
    assert after["running.parts.0.mean"].tolist() == [2.0, 2.75, 3.5, 4.25], "a cumulative average: a quarter of the way after 3 updates"
    assert after["running.parts.0.var"].tolist() == [2.0] * 4
    assert int(after["running.parts.0.count"]) == 4


def test_a_norm_that_blocks_share_has_the_statistics_of_each_use() -> None:
    network = network_of(own_modules.PlainList, head=False)
    shared = network_of(own_modules.a_layer_under_two_names, head=False)
    params, state = shared.init()
    support = EPISODES["train"].support
    seen = shared.on_support_seen(params, state, support)[1]
    assert set(seen) == {f"parts.0.1{use}.{kind}" for use in ("", ":2") for kind in ("mean", "var")}
    after = shared.update_running(state, {name: value[None] for name, value in seen.items()})
    expected = 0.9 * (0.1 * seen["parts.0.1.mean"]) + 0.1 * seen["parts.0.1:2.mean"]
    torch.testing.assert_close(after["running.parts.0.1.mean"], expected)
    object.__setattr__(shared, "norm", "support")
    fitted = shared.fit(params, state, support, training=False)
    again = shared.on_query(fitted, support.x)[0]
    torch.testing.assert_close(again, shared.on_support(params, state, support, training=True), rtol=1e-4, atol=1e-5)
    assert len(network.norms) == 1


@pytest.mark.parametrize(
    ("first", "then"), [(own_modules.Embedding, own_modules.frozen_stem), (own_modules.frozen_stem, own_modules.Embedding)]
)
def test_a_run_may_start_from_one_that_froze_other_parameters(first: own_modules.Module, then: own_modules.Module, tmp_path: Any) -> None:
    params, state = network_of(first, seed=3).init()
    checkpoint.save(tmp_path / "last.pt", Checkpoint(1, params, state, config=composed()))
    found, fixed = warm_start(*network_of(then).init(), str(tmp_path / "last.pt"))
    stored, now = {**params, **state}, {**found, **fixed}
    old, new = (next(value for name, value in each.items() if name.endswith("stem.weight")) for each in (stored, now))
    assert torch.equal(old, new)


METHODS = ["protonet", "maml", "boil", "reptile", "mamlpp", "imaml", "metasgd", "pmaml", "metaprior", "finetune", "matching", "r2d2"]


@pytest.mark.parametrize("option", [*METHODS, "memory", "mann", "scratch"])
def test_every_method_leaves_frozen_parameters_and_buffers_alone(option: str) -> None:
    def partly_frozen() -> nn.Module:
        made = own_modules.Embedding(nn.BatchNorm2d(4, momentum=None), own_modules.Projection(), out_features=6)
        made.stem.requires_grad_(False)
        made.parts[0].bias.requires_grad_(False)
        return made

    algorithm: Any = algorithm_of(option)
    network = network_of(partly_frozen, head=traits_of(algorithm).head)
    algorithm = dataclasses.replace(algorithm, network=dataclasses.replace(network, module=_with_ways(network.module, 3)))
    params, state = algorithm.init(draws.key(0))
    assert not [name for name in params if "stem" in name or name.endswith("parts.0.bias")]
    batch, keys = deal(few_shot(), "train", torch.arange(2)), draws.key(0, torch.arange(2))
    *_, aux = gradients_of(algorithm, params, state, batch, keys, torch.tensor(0))
    after = algorithm.update_state(state, aux.state)
    fixed = {name for name in state if name.startswith(("frozen.", "buffer."))}
    assert len(fixed) == 5
    assert all(torch.equal(after[name], state[name]) for name in fixed)
    assert {name: value.shape for name, value in after.items()} == {name: value.shape for name, value in state.items()}
    scores = TaskScores(algorithm, "last")((params, after, None), (deal(few_shot(), "val", torch.arange(2)), keys))
    assert scores["by_step"].isfinite().all()


def _with_ways(module: nn.Module, ways: int) -> nn.Module:
    return Classifier(module.body, ways) if isinstance(module, Classifier) else module
