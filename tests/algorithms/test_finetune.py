"""Fine-tuning: supervised pre-training on global labels, and new heads against torch's own SGD."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small import Double, conv_network, few_shot, run_engine
from torch import Tensor, nn
from torch.nn import functional as F

from metarun import draws, testing
from metarun.algorithms.finetune import Finetune
from metarun.algorithms.parts.orders import mini_batches
from metarun.engine.evaluation import evaluate
from metarun.errors import UserError
from metarun.network import joint_mask
from metarun.objectives import CLASSIFICATION
from metarun.types import Episode, Examples, Params, State
from metarun.wiring.build import build

KEY, STEP = draws.key(1), torch.tensor(0)


def finetune(norm: str = "running", **options: Any) -> Finetune:
    return Finetune(conv_network(norm, outputs=None), CLASSIFICATION, **{"train_classes": 9, "test_inner_steps": 5, **options})


def episode_of(split: str, **sampling: Any) -> Episode:
    episode: Episode = testing.double(few_shot(train_labels="global", **sampling).episode(split, 0))
    return episode


def embed(algorithm: Finetune, params: Params, state: State, x: Tensor) -> Tensor:
    return algorithm.network.on_support(params, state, Examples(x, x), training=False)


class Head(nn.Module):
    """A head of torch's: a linear layer, or a cosine under a learned norm for each class."""

    def __init__(self, start: Params, cosine: bool) -> None:
        super().__init__()
        for name, value in start.items():
            self.register_parameter(name, nn.Parameter(value.clone()))
        self.cosine = cosine

    def forward(self, z: Tensor) -> Tensor:
        if self.cosine:
            return 2.0 * self.norm * F.cosine_similarity(z[:, None], self.weight[None], dim=2)
        return F.linear(z, self.weight, self.bias)


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("options", [{}, {"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0}, {"test_inner_batch": 2}], ids=str)
def test_a_new_head_is_trained_as_by_torchs_sgd_on_fixed_embeddings(cosine: bool, options: dict[str, Any]):
    algorithm, (support, query) = finetune(cosine_head=cosine, test_inner_lrs=(0.3,), **options), episode_of("test")
    params, state = testing.start(algorithm)
    untrained = finetune(cosine_head=cosine, test_inner_steps=0).adapt(params, state, support, KEY).head
    head = Head(untrained, cosine)
    sgd = torch.optim.SGD(
        head.parameters(), lr=0.3, momentum=algorithm.momentum, dampening=algorithm.dampening, weight_decay=algorithm.weight_decay
    )
    z = embed(algorithm, params, state, support.x)
    for rows in mini_batches(support, draws.fold(KEY, "batches"), 5, algorithm.test_inner_batch):
        sgd.zero_grad()
        F.cross_entropy(head(z[rows]), support.y[rows].argmax(dim=1)).backward()
        sgd.step()
    tuned = algorithm.adapt(params, state, support, KEY)
    testing.assert_same(tuned.head, dict(head.named_parameters()), "the head", tolerance=1e-7)  # the rate is kept in single precision
    logits = algorithm.predict(tuned, query.x)
    torch.testing.assert_close(logits, head(embed(algorithm, params, state, query.x)).detach(), rtol=1e-6, atol=1e-7)


def test_with_all_layers_the_backbone_is_trained_too():
    algorithm, (support, _) = finetune(adapt_all=True, test_inner_lrs=(0.1,), weight_decay=0.0), episode_of("test")
    params, state = testing.start(algorithm)
    start = finetune(test_inner_steps=0).adapt(params, state, support, KEY).head
    body = {name: params[name].clone().requires_grad_() for name in algorithm.network.names}
    head = Head(start, cosine=False)
    sgd = torch.optim.SGD([*body.values(), *head.parameters()], lr=0.1, momentum=0.9, dampening=0.9)
    for rows in mini_batches(support, draws.fold(KEY, "batches"), 5, 4):
        sgd.zero_grad()
        F.cross_entropy(head(embed(algorithm, body, state, support.x[rows])), support.y[rows].argmax(dim=1)).backward()
        sgd.step()
    tuned = algorithm.adapt(params, state, support, KEY)
    found = {name: tuned.network.params[name] for name in body}
    testing.assert_same(found, body, "the backbone", tolerance=1e-7)
    assert all((found[name] - params[name]).abs().max() > 1e-6 for name in found)


def test_without_it_the_backbone_stays_and_the_training_head_plays_no_part():
    algorithm, (support, query) = finetune(), episode_of("test")
    params, state = testing.start(algorithm)
    other = {name: value + 1.0 if name.startswith("head.") else value for name, value in params.items()}
    first, second = (algorithm.adapt(each, state, support, KEY) for each in (params, other))
    assert torch.equal(algorithm.predict(first, query.x), algorithm.predict(second, query.x))
    assert all(torch.equal(first.network.params[name], params[name]) for name in algorithm.network.names)
    assert first.head["weight"].shape == (3, 12), "three ways, whatever the number of training classes"


@pytest.mark.parametrize("cosine", [False, True])
def test_the_training_loss_is_the_cross_entropy_over_all_training_classes(cosine: bool):
    algorithm, episode = finetune(cosine_head=cosine), episode_of("train")
    params, state = testing.start(algorithm)
    assert episode.support.y.shape == (6, 9), "labels number all nine classes"
    *embeddings, _ = algorithm.network.on_episode(params, state, episode)
    head = Head({name.removeprefix("head."): value for name, value in params.items() if name.startswith("head.")}, cosine)
    labels = torch.cat([episode.support.y, episode.query.y]).argmax(dim=1)
    loss, _ = algorithm.loss(params, state, episode, KEY, STEP)
    torch.testing.assert_close(loss, F.cross_entropy(head(torch.cat(embeddings)), labels).detach(), rtol=1e-9, atol=1e-10)


def test_a_cosine_head_of_many_classes_has_the_larger_scale():
    algorithm = finetune(cosine_head=True)
    z = torch.randn(2, 3, dtype=torch.float64)
    for classes, scale in ((200, 2.0), (201, 10.0)):
        head = {"weight": torch.randn(classes, 3, dtype=torch.float64), "norm": torch.full((classes,), 0.5, dtype=torch.float64)}
        expected = scale * 0.5 * F.cosine_similarity(z[:, None], head["weight"][None], dim=2)
        torch.testing.assert_close(algorithm._outputs(head, z), expected, rtol=1e-9, atol=1e-10)


def test_new_heads_start_as_torchs_linear_layers_and_hang_on_the_key():
    algorithm = finetune(test_inner_steps=0)
    params, state = testing.start(algorithm)
    support = episode_of("test").support
    heads = [algorithm.adapt(params, state, support, draws.key(seed)).head["weight"] for seed in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert max(float(head.abs().max()) for head in heads) <= 1 / math.sqrt(12)


def test_the_choice_is_the_rate_with_the_best_validation_score():
    algorithm = finetune(test_inner_lrs=(0.01, 0.1, 1.0))
    params, state = algorithm.init(draws.key(0))
    assert float(state["test_inner_lr"]) == pytest.approx(0.01)
    scores = {0.01: 0.4, 0.1: 0.6, 1.0: math.nan}
    chosen = algorithm.choose(params, state, lambda tried: {0: scores[round(float(tried["test_inner_lr"]), 3)]})
    assert float(chosen["test_inner_lr"]) == pytest.approx(0.1)


def test_a_single_rate_is_taken_without_a_validation():
    algorithm = finetune(test_inner_lrs=(0.05,))
    params, state = algorithm.init(draws.key(0))
    chosen = algorithm.choose(params, state | {"test_inner_lr": torch.tensor(7.0)}, lambda tried: pytest.fail("nothing to choose from"))
    assert float(chosen["test_inner_lr"]) == pytest.approx(0.05)


def test_pre_training_on_mini_batches_lowers_the_loss_and_its_features_serve_new_classes(tmp_path: Path):
    algorithm, source = finetune(test_inner_lrs=(0.1,), test_inner_steps=20), few_shot(train_labels="global", train_ways=9)
    run = run_engine(tmp_path, algorithm, source, steps=30, tasks_per_step=1, optimizer={"name": "Adam", "lr": 0.02})
    losses = [line["train/loss"] for line in run.lines if "train/loss" in line]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    report = evaluate(algorithm, run.position.params, run.position.state, Double(source), split="test", episodes=20)
    assert report.mean > 0.6, "chance is a third"


@pytest.mark.parametrize("options", [{"cosine_head": True}, {"adapt_all": True}], ids=str)
@pytest.mark.parametrize("norm", ["running", "batch", "support"])
def test_the_contract_holds_with_every_part(options: dict[str, Any], norm: str):
    testing.check_algorithm(finetune(norm, test_inner_steps=3, train_classes=3, **options), few_shot())


def test_padding_of_a_mini_batch_counts_nowhere():
    episode = episode_of("train", shots=4, min_shots=1)
    algorithm = finetune("layer")
    params, state = testing.start(algorithm)
    real = joint_mask(*episode)
    assert real is not None
    assert not real.all()
    z = torch.cat(algorithm.network.on_episode(params, state, episode)[:2])[real]
    labels = torch.cat([episode.support.y, episode.query.y])[real].argmax(dim=1)
    expected = F.cross_entropy(F.linear(z, params["head.weight"], params["head.bias"]), labels)
    torch.testing.assert_close(algorithm.loss(params, state, episode, KEY, STEP)[0], expected, rtol=1e-9, atol=1e-10)


def config(**task: Any) -> dict[str, Any]:
    return {
        "seed": 0,
        "task": {"_target_": "small.small_images", **task},
        "algo": {"_target_": "metarun.algorithms.finetune.Finetune"},
        "backbone": {"_target_": "small.SmallConv", "norm": "running"},
        "device": {"name": "cpu", "threads": 1},
    }


def test_metarun_tells_the_algorithm_how_many_training_classes_there_are():
    algorithm = build(config(train_labels="global")).algorithm
    assert isinstance(algorithm, Finetune)
    assert algorithm.train_classes == 9
    assert algorithm.init(draws.key(0))[0]["head.weight"].shape == (9, 12)


def test_labels_of_episodes_are_refused():
    with pytest.raises(UserError, match=r"Finetune trains a head over all training classes, .*; set task\.train_labels=global"):
        build(config(train_labels="episode"))
    with pytest.raises(UserError, match="make the task with train_labels=global"):
        build(config())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"test_inner_steps": -1}, r"algo\.test_inner_steps=-1 must be at least 0"),
        ({"test_inner_batch": 0}, r"algo\.test_inner_batch=0 at least 1"),
        ({"test_inner_lrs": ()}, r"algo\.test_inner_lrs=\[\] must be one or more rates above 0"),
        ({"test_inner_lrs": (0.1, 0.0)}, r"algo\.test_inner_lrs=\[0\.1, 0\.0\] must be one or more"),
    ],
)
def test_bad_options_are_told_in_a_sentence(options: dict[str, Any], sentence: str):
    with pytest.raises(UserError, match=sentence):
        finetune(**options)
