"""SimpleShot against a loop over classes, and its mean over the training images."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from small import Double, SmallConv, few_shot, run_engine
from torch import Tensor, nn

from metarun import draws, testing
from metarun.algorithms.simpleshot import COUNT, MEAN, WINDOW, SimpleShot
from metarun.backbones.identity import Identity
from metarun.engine.evaluation import evaluate
from metarun.network import Network
from metarun.objectives import CLASSIFICATION
from metarun.types import Episode, Examples

KEY, STEP = draws.key(0), torch.tensor(0)
SOURCE = few_shot(train_labels="global")


def simpleshot(module: nn.Module | None = None, **options: Any) -> SimpleShot:
    return SimpleShot(Network(Identity((1, 8, 8)) if module is None else module, norm="running"), CLASSIFICATION, 9, **options)


def by_hand(z: Tensor, mean: Tensor, transform: str) -> Tensor:
    if transform == "un":
        return z
    moved = z - mean if transform == "cl2n" else z
    return moved / moved.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("transform", ["un", "l2n", "cl2n"])
def test_a_logit_is_minus_the_squared_distance_to_the_mean_of_the_transformed_support(transform: str) -> None:
    support, query = testing.double(few_shot(shots=3).episode("test", 0))
    algorithm = simpleshot(transform=transform)
    params, state = testing.start(algorithm)
    state[MEAN] = torch.linspace(0, 1, 64, dtype=torch.float64)
    logits = algorithm.predict(algorithm.adapt(params, state, support, KEY), query.x)
    z, asked = (by_hand(part.x.flatten(1), state[MEAN], transform) for part in (support, query))
    for n in range(3):
        centre = z[support.y[:, n] == 1].mean(dim=0)
        torch.testing.assert_close(logits[:, n], -(asked - centre).square().sum(dim=1))


def test_an_embedding_that_does_not_learn_has_no_parameter_and_the_exact_mean_of_all_images_seen(tmp_path: Path) -> None:
    algorithm = simpleshot()
    run = run_engine(tmp_path, algorithm, SOURCE, steps=150)
    assert run.position.params == {}
    seen = SOURCE.batch("train", torch.arange(300))
    images = torch.cat([part.x.flatten(0, 1) for part in seen]).flatten(1).double()
    torch.testing.assert_close(run.position.state[MEAN], images.mean(dim=0))
    assert run.position.state[COUNT] == 150 > WINDOW


def test_a_frozen_network_learns_nothing_and_a_free_one_learns_a_classifier_of_the_training_classes() -> None:
    frozen = SmallConv()
    frozen.requires_grad_(False)
    assert simpleshot(frozen.eval()).init(KEY)[0] == {}
    free = simpleshot(SmallConv())
    params, state = free.init(KEY)
    assert params["head.weight"].shape == (9, 12)
    loss, aux = free.loss(params, state, SOURCE.episode("train", 0), KEY, STEP)
    outputs = free.network.on_episode(params, state, SOURCE.episode("train", 0))
    z, y = torch.cat(outputs[:2]), torch.cat([part.y for part in SOURCE.episode("train", 0)])
    expected = nn.functional.cross_entropy(z @ params["head.weight"].T + params["head.bias"], y.argmax(dim=1))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(aux.state["embedding"], z.mean(dim=0).detach())


def test_the_mean_of_a_learning_network_forgets_old_embeddings() -> None:
    """After the count has reached WINDOW, each step has the share 1 / WINDOW; 1 step of 10 in the beginning has the share 1 / 10."""
    algorithm = simpleshot(SmallConv())
    state = algorithm.init(KEY)[1]
    seen = {"embedding": torch.ones(2, 12)}
    for count, share in ((0.0, 1.0), (9.0, 0.1), (999.0, 1 / WINDOW)):
        after = algorithm.update_state(state | {COUNT: torch.tensor(count)}, seen)
        torch.testing.assert_close(after[MEAN], torch.full((12,), share))


def test_padding_rows_and_absent_classes_count_nowhere() -> None:
    algorithm = dataclasses.replace(simpleshot(Identity((1,)), transform="un"), train_classes=3)
    params, state = algorithm.init(KEY)
    y = torch.eye(3)[[0, 1, 0, 2]]
    part = Examples(torch.tensor([[0.0], [1.0], [50.0], [0.4]]), y, torch.tensor([True, True, False, False]))
    adapted = algorithm.adapt(params, state, part, KEY)
    torch.testing.assert_close(algorithm.predict(adapted, torch.tensor([[0.4]])), torch.tensor([[-0.16, -0.36, -1e9]]))
    _, aux = algorithm.loss(params, state, Episode(part, part), KEY, STEP)
    assert aux.state["embedding"].tolist() == [0.5]
    assert aux.metrics["accuracy"] == 1.0


def test_centring_helps_where_all_classes_share_a_large_offset() -> None:
    """Pixels in [0, 1] point in nearly the same direction, so that length 1 without centring loses most of the difference."""
    source = few_shot(shots=5)
    seen = SOURCE.batch("train", torch.arange(50))
    mean = seen.support.x.flatten(0, 1).flatten(1).double().mean(dim=0)
    scores = {}
    for transform in ("l2n", "cl2n"):
        algorithm = simpleshot(transform=transform)
        state = testing.start(algorithm)[1] | {MEAN: mean}
        scores[transform] = evaluate(algorithm, {}, state, Double(source), split="test", episodes=20).mean
    assert scores["cl2n"] >= scores["l2n"] > 0.8
