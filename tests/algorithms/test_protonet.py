"""Prototypical networks against a double loop and torch's own batch norm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small import Double, SmallConv, conv_network, few_shot, run_engine
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from metarun import testing
from metarun.algorithms.protonet import ProtoNet
from metarun.engine.evaluation import evaluate
from metarun.errors import UserError
from metarun.objectives import CLASSIFICATION
from metarun.types import Episode, Params, State

KEY, STEP = torch.tensor(1), torch.tensor(0)


def protonet(norm: str = "running") -> ProtoNet:
    return ProtoNet(conv_network(norm, outputs=None), CLASSIFICATION)


def image_episode(split: str = "train", **sampling: Any) -> Episode:
    episode: Episode = testing.double(few_shot(**sampling).episode(split, 0))
    return episode


def double_loop(support: Tensor, labels: list[int], queries: Tensor, ways: int) -> Tensor:
    """Return minus the squared distances of embeddings to class means, one number at a time."""
    logits = torch.zeros(len(queries), ways, dtype=support.dtype)
    for i, query in enumerate(queries):
        for n in range(ways):
            members = [embedding for embedding, label in zip(support, labels, strict=True) if label == n]
            centre = sum(members) / len(members)
            logits[i, n] = -sum((float(q) - float(c)) ** 2 for q, c in zip(query, centre, strict=True))
    return logits


def embed(params: Params, x: Tensor, state: State | None = None) -> Tensor:
    """Embed with torch's own batch norms: in training mode, or at test with the running statistics of a state."""
    module: nn.Module = SmallConv().double()
    if state is None:
        return functional_call(module, params, (x,))
    module.eval()
    for name in ("first_norm", "second_norm"):
        layer = getattr(module, name)
        layer.running_mean, layer.running_var = state[f"running.{name}.mean"], state[f"running.{name}.var"]
    return functional_call(module, params, (x,))


@pytest.mark.parametrize("norm", ["running", "batch"])
def test_the_training_loss_is_that_of_a_double_loop_over_one_joint_pass(norm: str):
    algorithm, (support, query) = protonet(norm), image_episode(shots=3)
    params, state = testing.start(algorithm)
    embeddings = embed(params, torch.cat([support.x, query.x]))
    count, labels = len(support.x), support.y.argmax(dim=1).tolist()
    logits = double_loop(embeddings[:count], labels, embeddings[count:], 3)
    loss, aux = algorithm.loss(params, state, Episode(support, query), KEY, STEP)
    torch.testing.assert_close(loss, F.cross_entropy(logits, query.y.argmax(dim=1)), rtol=1e-10, atol=1e-10)
    assert float(aux.metrics["accuracy"]) == float((logits.argmax(dim=1) == query.y.argmax(dim=1)).double().mean())


def test_at_test_the_running_statistics_normalise_support_and_query():
    algorithm, (support, query) = protonet(), image_episode("test", shots=2)
    params, state = testing.start(algorithm)
    state = {name: torch.rand_like(value) + 0.5 for name, value in state.items()}
    labels = support.y.argmax(dim=1).tolist()
    expected = double_loop(embed(params, support.x, state), labels, embed(params, query.x, state), 3)
    logits = algorithm.predict(algorithm.adapt(params, state, support, KEY), query.x)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)


def test_at_test_batch_normalises_each_of_the_two_sets_by_its_own_statistics():
    algorithm, (support, query) = protonet("batch"), image_episode("test")
    params, state = testing.start(algorithm)
    expected = double_loop(embed(params, support.x), support.y.argmax(dim=1).tolist(), embed(params, query.x), 3)
    logits = algorithm.predict(algorithm.adapt(params, state, support, KEY), query.x)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)


def test_the_running_statistics_move_towards_those_of_the_joint_pass_by_the_momentum():
    algorithm, (support, query) = protonet(), image_episode()
    params, state = testing.start(algorithm)
    _, aux = algorithm.loss(params, state, Episode(support, query), KEY, STEP)
    after = algorithm.update_state(state, {name: value[None] for name, value in aux.state.items()})
    weights = {name.removeprefix("first."): value for name, value in params.items() if name.startswith("first.")}
    seen = functional_call(SmallConv().double().first, weights, (torch.cat([support.x, query.x]),)).transpose(0, 1).flatten(1)
    torch.testing.assert_close(after["running.first_norm.mean"], 0.1 * seen.mean(dim=1), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(after["running.first_norm.var"], 0.9 + 0.1 * seen.var(dim=1, correction=0), rtol=1e-8, atol=1e-12)


def test_ways_in_training_may_differ_from_ways_at_test(tmp_path: Path):
    source = few_shot(ways=3, train_ways=6, train_shots=1, train_queries=2)
    run = run_engine(tmp_path, protonet(), source, steps=2)
    report = evaluate(protonet(), run.position.params, run.position.state, Double(source), split="test", episodes=3)
    assert source.episode("train", 0).support.y.shape[1] == 6
    assert source.episode("test", 0).support.y.shape[1] == 3
    assert 0.0 <= report.mean <= 1.0
    assert report.steps == [0], "adaptation is one pass, without inner steps"


def test_training_lowers_the_loss(tmp_path: Path):
    run = run_engine(tmp_path, protonet(), few_shot(), steps=12, optimizer={"name": "Adam", "lr": 0.01})
    losses = [line["train/loss"] for line in run.lines if "train/loss" in line]
    assert sum(losses[-3:]) < sum(losses[:3])


def test_logits_permute_with_the_classes():
    algorithm, (support, query) = protonet(), image_episode()
    params, state = testing.start(algorithm)
    order = torch.tensor([1, 2, 0])
    plain, turned = (algorithm.adapt(params, state, each, KEY) for each in (support, support._replace(y=support.y[:, order])))
    torch.testing.assert_close(algorithm.predict(plain, query.x)[:, order], algorithm.predict(turned, query.x), rtol=1e-12, atol=1e-12)


def test_with_one_shot_a_prototype_is_the_embedding_itself():
    algorithm, (support, _) = protonet(), image_episode(shots=1)
    params, state = testing.start(algorithm)
    adapted = algorithm.adapt(params, state, support, KEY)
    torch.testing.assert_close(adapted.centres, embed(params, support.x, state), rtol=1e-12, atol=1e-12)


def test_a_support_example_at_its_own_prototype_has_distance_zero():
    algorithm, (support, _) = protonet(), image_episode(shots=1)
    params, state = testing.start(algorithm)
    logits = algorithm.predict(algorithm.adapt(params, state, support, KEY), support.x)
    assert logits.diagonal().abs().max() < 1e-9
    assert (logits.argmax(dim=1) == torch.arange(3)).all()


def test_an_unknown_norm_is_a_sentence():
    with pytest.raises(UserError, match=r"backbone\.norm=runing is unknown.*Did you mean 'running'"):
        protonet("runing")
