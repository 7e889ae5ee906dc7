"""Memories of past tasks that hold entries already, small enough to compute with in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from small import conv_network, dense_network, few_shot
from torch import Tensor, nn

from metarun import draws, testing
from metarun.algorithms.memory import Memory
from metarun.algorithms.parts.entries import EMPTY, KEYS, USAGE, VALUES
from metarun.objectives import CLASSIFICATION, REGRESSION
from metarun.types import Episode, Params, State

KEY, STEP = torch.tensor(1), torch.tensor(0)


@dataclass(frozen=True)
class Filled(Memory):
    """The same with a memory that holds `entries` already, and a gate that has learned something."""

    entries: int = 6

    def init(self, key: Tensor) -> tuple[Params, State]:
        params, state = super().init(key)
        keys = draws.normal(draws.fold(key, "filled keys"), self.capacity, self.key_size)
        values = draws.normal(draws.fold(key, "filled values"), *state[VALUES].shape)
        usage = draws.uniform(draws.fold(key, "filled usage"), self.capacity)
        there = torch.arange(self.capacity) < self.entries
        gate = 0.5 * draws.normal(draws.fold(key, "learned gate"), *params["gate.weight"].shape)
        state |= {KEYS: nn.functional.normalize(keys) * there[:, None], VALUES: values * there[:, None]}
        return params | {"gate.weight": gate}, state | {USAGE: torch.where(there, usage, EMPTY)}


SMALL: dict[str, Any] = {"capacity": 8, "neighbours": 3, "key_size": 4}


def classifier(kind: type[Memory] = Memory, norm: str = "running", **options: Any) -> Memory:
    return kind(conv_network(norm, outputs=None), CLASSIFICATION, **SMALL | options)


def regressor(kind: type[Memory] = Memory, **options: Any) -> Memory:
    return kind(dense_network(None), REGRESSION, **SMALL | options)


def image_episode(split: str = "train", **sampling: Any) -> Episode:
    episode: Episode = testing.double(few_shot(**sampling).episode(split, 0))
    return episode


def memory_of(usage: list[float]) -> State:
    """Return a memory whose entry n has the key n and the value 10 n, with these usages."""
    numbers = torch.arange(float(len(usage)))
    return {KEYS: numbers[:, None], VALUES: 10 * numbers[:, None], USAGE: torch.tensor(usage)}
