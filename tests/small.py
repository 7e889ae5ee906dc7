"""Things small enough to compute with in float64 in a moment: a network with batch norms, image episodes, and composed configs."""

from __future__ import annotations

import copy
import functools
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from metarun import draws
from metarun.backbones.classifier import Classifier
from metarun.compute.plan import Plan
from metarun.engine.optimizer import OuterOptimizer
from metarun.engine.training import Position, Settings, train
from metarun.network import Network
from metarun.objectives import objective
from metarun.records.progress import Progress
from metarun.records.tracking import Tracker
from metarun.tasks.pool import ClassPool
from metarun.tasks.sampling import FewShot
from metarun.testing import double, start
from metarun.types import Algorithm, Episode, Examples, TaskSource, traits_of
from metarun.wiring.instantiate import instantiate, locate


class SmallConv(nn.Module):
    """Two convolutions with batch norms; images (B, C, 8, 8), (B, C, 4, 4) … to 3 values per remaining pixel."""

    def __init__(self, channels: int = 1, filters: int = 3, side: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, filters, 3, stride=2, padding=1)
        self.first_norm = nn.BatchNorm2d(filters)
        self.second = nn.Conv2d(filters, filters, 3, stride=2, padding=1)
        self.second_norm = nn.BatchNorm2d(filters)
        self.out_features = filters * (side // 4) ** 2

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first_norm(self.first(x)))  # smooth, so that second derivatives exist everywhere
        return torch.tanh(self.second_norm(self.second(x))).flatten(1)


class OneConv(nn.Module):
    """One convolution with a batch norm, for tests that take time with each operation; images (B, 1, 8, 8) to 12 values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, stride=4, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.out_features = 12

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.norm(self.conv(x))).flatten(1)


@dataclass(frozen=True)
class Lines:
    """Regression tasks y = W x with W of its own for each episode: x (B, 4), y (B, 2)."""

    shots: int = 6
    queries: int = 5
    seed: int = 0
    objective: str = "regression"

    def episode(self, split: str, index: int) -> Episode:
        key = draws.key(self.seed, split, index)
        x = draws.normal(draws.fold(key, "x"), self.shots + self.queries, 4)
        y = x @ draws.normal(draws.fold(key, "W"), 4, 2)
        return Episode(Examples(x[: self.shots], y[: self.shots]), Examples(x[self.shots :], y[self.shots :]))


def few_shot(side: int = 8, **sampling: Any) -> FewShot:
    """Return 8x8 grey images of 9 classes a split, 10 each: a class's own pattern under noise, so that there is something to learn."""

    def pool(split: str) -> ClassPool:
        key = draws.key(3, split)
        patterns = draws.uniform(draws.fold(key, "pattern"), 9, 1, 1, side, side)
        noise = draws.uniform(draws.fold(key, "noise"), 9, 10, 1, side, side)
        images = (255 * (0.6 * patterns + 0.4 * noise)).to(torch.uint8).flatten(0, 1)
        return ClassPool(images, [10] * 9, [f"{split}{i}" for i in range(9)])

    return FewShot({split: pool(split) for split in ("train", "val", "test")}, **{"ways": 3, "shots": 2, "queries": 3, **sampling})


@dataclass(frozen=True)
class Double:
    """Another source's episodes in float64."""

    source: TaskSource

    @property
    def objective(self) -> str:
        return self.source.objective

    def episode(self, split: str, index: int) -> Episode:
        episode: Episode = double(self.source.episode(split, index))
        return episode


@dataclass(frozen=True)
class Unnumbered:
    """Another source's episodes, one by one."""

    source: TaskSource
    objective: str = "classification"

    def episode(self, split: str, index: int) -> Episode:
        return self.source.episode(split, index)


@dataclass
class Run:
    """What a run of the engine leaves: where it ended, the names that it saved with their steps, and the lines of its metrics."""

    position: Position
    saved: list[tuple[str, int]]
    lines: list[dict[str, Any]]


def run_engine(
    folder: Path,
    algorithm: Algorithm,
    source: TaskSource,
    *,
    position: Position | None = None,
    optimizer: dict[str, Any] | None = None,
    on_save: Callable[[Position, str], None] = lambda position, name: None,
    chunk: int = 8,
    **settings: Any,
) -> Run:
    """Run the engine in float64 from the algorithm's own beginning, with plain gradient descent at 0.1 unless told otherwise."""
    plans = {"plan": Plan(chunk), "eval_plan": Plan(chunk)}
    chosen = Settings(
        **{**plans, "steps": 3, "tasks_per_step": 2, "eval_every": 0, "eval_episodes": 2, "save_every": 0, "log_every": 1, **settings}
    )
    position = position or Position(0, *start(algorithm, chosen.seed))
    outer = OuterOptimizer(position.params, max(chosen.steps, 1), **(optimizer or {"name": "SGD", "lr": 0.1}))
    saved: list[tuple[str, int]] = []

    def save(position: Position, name: str) -> None:
        saved.append((name, position.step))
        on_save(position, name)

    with Tracker(folder) as tracker:
        progress = Progress(chosen.steps, stream=io.StringIO())
        end = train(algorithm, Double(source), position, outer, chosen, tracker=tracker, progress=progress, save=save)
    return Run(end, saved, [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()])


def small_images(**sampling: Any) -> FewShot:
    """Return the same source under a name that a config may have as its `_target_`."""
    return few_shot(**sampling)


def unnumbered_images() -> Unnumbered:
    """Return the same source, as a user's own that numbers no classes."""
    return Unnumbered(few_shot())


def large_images() -> FewShot:
    """Return them at 28x28, for backbones that pool four times."""
    return few_shot(side=28)


def split_images(classes: dict[str, list[str]] | None = None, **sampling: Any) -> FewShot:
    """Return the same source in the form of one that draws its class split, unless `classes` gives it.

    Another split may have the same three lists in another order of the splits.
    """
    source = few_shot(**sampling)
    if classes is None:
        return source
    names = {tuple(pool.names): pool for pool in source.pools.values()}
    return replace(source, pools={split: names[tuple(listed)] for split, listed in classes.items()})


def conv_network(norm: str = "batch", outputs: int | None = 3, seed: int = 0, kind: type[SmallConv | OneConv] = SmallConv) -> Network:
    """Return a small convolutional network, with a head where `outputs` are given; scales and shifts of its norms are random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = kind()
        for layer in backbone.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, std=0.5)
        return Network(backbone if outputs is None else Classifier(backbone, outputs), norm)


def dense_network(outputs: int | None = 2, seed: int = 0) -> Network:
    """Return a 4-5-`outputs` perceptron with tanh, without its head where `outputs` is None."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = nn.Sequential(nn.Linear(4, 5), nn.Tanh())
        backbone.out_features = 5  # type: ignore[assignment]
        return Network(backbone if outputs is None else Classifier(backbone, outputs))


def composed(*overrides: str) -> dict[str, Any]:
    """Return the resolved config of `metarun train` with these overrides."""
    return copy.deepcopy(_composed(*overrides))


@functools.cache
def _composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_module("metarun.configs", version_base="1.3"):
        config: DictConfig = compose("train", overrides=list(overrides))
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def words_of(option: str) -> tuple[str, str, str]:
    """Return the words that choose an algorithm; the same everywhere, so that a process composes its config once."""
    return f"algo={option}", "task=sinusoid", "backbone=mlp"


def algorithm_of(option: str, kind: str = "classification", norm: str = "batch", outputs: int = 3) -> Algorithm:
    """Return the algorithm of `configs/algo/<option>.yaml` on a small network, with short inner loops, few samples and few layers."""
    node = {key: value for key, value in composed(*words_of(option))["algo"].items() if key != "recipe"}
    for key, value in node.items():
        if key.endswith("inner_steps") and value is not None:
            node[key] = min(value, 2)
        if key.endswith("layers") or key == "cg_steps":
            node[key] = min(value, 2)
        if key in ("samples", "passes"):
            node[key] = min(value, 2)
    extra: dict[str, Any] = {"objective": objective(kind)}
    if wants_network(option):
        head = traits_of(locate(node["_target_"])).head
        extra["network"] = conv_network(norm, outputs if head else None) if kind == "classification" else dense_network(2 if head else None)
    if traits_of(locate(node["_target_"])).learns_all_classes:
        extra["train_classes"] = outputs if kind == "classification" else 2
    if traits_of(locate(node["_target_"])).takes_sizes:
        extra |= {"inputs": 4, "outputs": 2}  # those of `Lines`
    algorithm: Algorithm = instantiate(node, name="algo", **extra)
    return algorithm


def wants_network(option: str) -> bool:
    """Return whether the algorithm has a network."""
    return "network" in locate(composed(*words_of(option))["algo"]["_target_"]).__dataclass_fields__


def kinds_of(option: str) -> tuple[str, ...]:
    """Return the kinds of task that an algorithm does."""
    return traits_of(locate(composed(*words_of(option))["algo"]["_target_"])).objectives
