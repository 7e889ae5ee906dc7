"""The rehearsal before the first step: what torch cannot map, or maps to another result, runs in a loop."""

from __future__ import annotations

import dataclasses
import logging
import re
from typing import Any

import own_modules
import pytest
import torch
from small import algorithm_of, few_shot
from torch import Tensor, nn
from torch.nn import functional as F

from metarun.algorithms.maml import Maml
from metarun.algorithms.pmaml import Pmaml
from metarun.backbones.classifier import Classifier
from metarun.commands.ensemble import ensemble_of, stacked
from metarun.compute.plan import Device, Work
from metarun.engine.evaluation import evaluate
from metarun.errors import UserError
from metarun.functional import without_map
from metarun.network import Network
from metarun.objectives import CLASSIFICATION
from metarun.wiring.rehearsal import rehearse, rehearse_scores

SOURCE = few_shot()
EPISODES = {split: SOURCE.episode(split, 0) for split in ("train", "val")}
CPU = Device("cpu", threads=1)


def maml(*parts: nn.Module, kind: Any = Maml, norm: str = "batch", **options: Any) -> Any:
    return kind(Network(Classifier(own_modules.Embedding(*parts), 3), norm), CLASSIFICATION, **options)


def functional_layer_norm() -> nn.Module:
    """Return a layer whose second derivative torch cannot map."""
    norm = nn.LayerNorm(4)
    return own_modules.Call(lambda x, norm: F.layer_norm(own_modules.rows_of(x), (4,), norm.weight, norm.bias).tanh().mean(1), norm)


def test_what_torch_can_map_needs_no_loop_and_draws_nothing() -> None:
    algorithm, before = maml(nn.BatchNorm2d(4)), torch.get_rng_state()
    assert not rehearse(algorithm, EPISODES, CPU)
    assert not rehearse(algorithm_of("protonet"), EPISODES, CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_map_to_another_result_is_found_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """The value is right, and the gradient is not: only a comparison with single tasks shows the fault."""

    class Faulty(torch.autograd.Function):
        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return g

        @staticmethod
        def vmap(info: Any, in_dims: Any, x: Tensor) -> tuple[Tensor, int]:
            return x.detach().clone(), in_dims[0]

    with caplog.at_level(logging.WARNING):
        assert rehearse(maml(own_modules.Call(Faulty.apply)), EPISODES, CPU)
    (record,) = caplog.records
    assert record.getMessage().endswith("one task after the other, slower: torch maps one of its operations to another result")


@pytest.mark.parametrize("norm", ["batch", "reptile"])
def test_a_loop_replaces_the_maps_over_samples_queries_and_members_too(norm: str) -> None:
    def branch(x: Tensor) -> Tensor:
        return x if x.sum() > 0 else 2.0 * x

    algorithm = maml(own_modules.Call(branch), kind=Pmaml, norm=norm, samples=2)
    assert rehearse(algorithm, EPISODES, CPU)
    params, state = algorithm.init(torch.tensor(0))
    with without_map():
        report = evaluate(algorithm, params, state, SOURCE, split="val", episodes=2)
    assert report.mean >= 0.0
    members = ensemble_of(maml(own_modules.Call(branch)))
    tensors = [stacked([each, each]) for each in members.member.init(torch.tensor(0))]  # type: ignore[attr-defined]
    assert rehearse_scores(members, *tensors, EPISODES["val"], CPU)


def test_an_ensemble_may_need_a_loop_where_its_members_need_none() -> None:
    """A weight of each member is added to inputs that all members share, in place."""

    class Shift(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.ones(1, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            y = torch.zeros_like(x.detach())
            y += self.shift
            return x * y

    algorithm = algorithm_of("protonet")
    algorithm = dataclasses.replace(algorithm, network=Network(nn.Sequential(Shift(), own_modules.Embedding())))  # type: ignore[type-var]
    assert not rehearse(algorithm, EPISODES, CPU)
    tensors = [stacked([each, each]) for each in algorithm.init(torch.tensor(0))]
    assert rehearse_scores(ensemble_of(algorithm), *tensors, EPISODES["val"], CPU)  # type: ignore[arg-type]


def test_an_error_of_every_map_and_loop_is_a_sentence_with_the_layer_and_the_line() -> None:
    def fails(x: Tensor) -> Tensor:
        if isinstance(x.grad_fn, type(None)) and x.requires_grad:
            raise LookupError("no such thing. And more.")
        return x.log1p().numpy() if x.requires_grad else x  # type: ignore[return-value]

    with pytest.raises(
        UserError, match=r"training with Maml fails in the layer 'body\.parts\.0' \(Call\): .* \(test_rehearsal\.py, line \d+\)"
    ):
        rehearse(maml(own_modules.Call(fails)), EPISODES, CPU)


def test_too_little_memory_for_two_tasks_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def scarce(x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert not rehearse(maml(own_modules.Call(scarce)), EPISODES, CPU)


def test_a_loop_takes_chunks_of_one_task_whatever_the_config_says() -> None:
    looping = dataclasses.replace(CPU, loop=True, chunk=8, threads=2)
    plan = looping.plan(Work(1e9, 1e6), 16, steps=10)
    assert (plan.chunk, plan.loop, plan.workers) == (1, True, 2)
    assert not dataclasses.replace(looping, loop=False).plan(Work(1e9, 1e6), 16).loop


def test_functional_layer_norm_under_second_order_maml_is_looped_and_first_order_is_not() -> None:
    assert rehearse(maml(functional_layer_norm()), EPISODES, CPU)
    assert not rehearse(maml(functional_layer_norm(), first_order=True), EPISODES, CPU)


def test_an_evaluation_rehearses_no_training() -> None:
    """Its inner loop needs first derivatives alone, so the map that fails in training does not matter."""
    assert not rehearse(maml(functional_layer_norm()), EPISODES, CPU, trains=False)

    class Untrainable(Maml):
        def loss(self, *arguments: Any) -> Any:
            raise AssertionError("the rehearsal trained")

    assert not rehearse(maml(nn.BatchNorm2d(4), kind=Untrainable), EPISODES, CPU, trains=False)


@pytest.mark.parametrize(
    ("function", "cause"),
    [
        (lambda x: x * 2 if x.sum().item() > 0 else x, r"branches on the value of a tensor, or calls \.item\(\)"),
        (lambda x: torch.zeros(x.shape).add_(x), "a tensor that all tasks share"),
        (lambda x: x.masked_fill(x > 0, 0.0) + x[x > 0].sum(), "takes a boolean mask as an index"),
    ],
)
def test_the_reason_for_a_loop_is_in_plain_words_with_its_line(function: Any, cause: str, caplog: pytest.LogCaptureFixture) -> None:
    assert rehearse(protonet(function), EPISODES, CPU)
    assert re.search(rf"slower: it .*{cause} \(test_rehearsal\.py, line \d+\)$", caplog.records[-1].getMessage())


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (lambda init, loss: {"init": lambda self, key: None}, "Mine.init returns NoneType; it must return two dictionaries"),
        (
            lambda init, loss: {"init": lambda self, key: ({"rate": 0.1}, {})},
            "Mine.init: its 'rate' has the type float, and must be a tensor",
        ),
        (
            lambda init, loss: {"init": lambda self, key: ({**init(self, key)[0], "w": torch.ones(2, dtype=torch.complex64)}, {})},
            "Mine.init: its tensor 'w' has the type torch.complex64, which a checkpoint does not hold",
        ),
        (
            lambda init, loss: {"update_state": lambda self, state, aux: {**state, "count": torch.ones(())}},
            "Mine.update_state must return the state of init",
        ),
        (lambda init, loss: {"loss": lambda *args: loss(*args)[0]}, "Mine.loss must return two values for a task: the loss, which is"),
        (lambda init, loss: {"loss": lambda *args: (loss(*args)[0][None], loss(*args)[1])}, "Mine.loss must return two values"),
    ],
)
def test_a_method_of_the_users_that_returns_something_else_is_a_sentence(method: Any, words: str) -> None:
    kind = type("Mine", (Maml,), method(Maml.init, Maml.loss))
    with pytest.raises(UserError, match=f"^{words}"):
        rehearse(maml(kind=kind), EPISODES, CPU)


def test_draws_from_the_global_generator_are_refused() -> None:
    with pytest.raises(UserError, match=r"^training with ProtoNet draws .* generator \(test_rehearsal\.py, line \d+\), and metarun cannot"):
        rehearse(protonet(lambda x: x + 0.0 * torch.rand_like(x)), EPISODES, CPU)


def test_a_forward_that_lets_no_gradient_through_is_refused() -> None:
    with pytest.raises(UserError, match=r"training with ProtoNet fails: no gradient reaches its parameters.*torch\.no_grad"):
        rehearse(protonet(torch.Tensor.detach), EPISODES, CPU)


def protonet(function: Any) -> Any:
    network = Network(own_modules.Embedding(own_modules.Call(function)))
    return dataclasses.replace(algorithm_of("protonet"), network=network)  # type: ignore[type-var]
