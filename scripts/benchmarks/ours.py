"""metarun's side: the one module that knows how its engine is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import wait
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from metarun import draws
from metarun.compute.running import Runner
from metarun.engine.evaluation import evaluate
from metarun.engine.report import Report
from metarun.engine.training import Loop
from metarun.episodes import deal
from metarun.types import Params, TaskSource
from metarun.wiring.build import build, build_settings, evaluation_plan, start

from .variants import composed


class Run:
    """A training run that is stepped by hand. wrap: what to put around the task source."""

    def __init__(self, overrides: Sequence[str], *, wrap: Callable[[TaskSource], TaskSource] = lambda source: source) -> None:
        parts = build(composed(overrides))
        self.parts, self.settings = replace(parts, source=wrap(parts.source)), build_settings(parts)
        self.position, self.optimizer = start(parts, self.settings)
        self._open = ExitStack()
        self.loop = self._open.enter_context(Loop(parts.algorithm, self.parts.source, self.position, self.optimizer, self.settings))
        self.dealer, self.runner = self.loop.dealer, self.loop.runner

    def step(self) -> None:
        """Take one outer step: deal, differentiate, update."""
        self.loop.step()

    def settle(self) -> None:
        """Wait until as many episodes are dealt ahead as there will ever be: a turn then pays for as many as it takes."""
        wait(list(self.dealer._ahead))

    def gradients(self, dtype: torch.dtype, count: int) -> tuple[Tensor, Params]:
        """Return mean loss and gradient of the first training tasks. In float32 they come from the very programs that a step runs."""
        position, indices = self.position, torch.arange(count)
        batch = (deal(self.parts.source, "train", indices), draws.key(self.settings.seed, "train", indices))
        shared = (position.params, position.state, torch.tensor(position.step))
        shared, batch = tree_map_only(Tensor, lambda leaf: leaf.to(dtype) if leaf.is_floating_point() else leaf, (shared, batch))
        runs = self.settings.steps if dtype == torch.float32 else 1  # once is not recorded, and so not compiled
        chunks = list(self.runner.map(self.loop.gradients, shared, [batch], runs=runs))
        mean = {name: torch.stack([gradients[name] for gradients, _, _ in chunks]).sum(dim=0) / count for name in position.params}
        return torch.cat([losses for _, losses, _ in chunks]).mean(), mean

    @property
    def mode(self) -> str:
        """How steps run: "compiled" or "recorded" as flat programs, or "eager", operation by operation, as they are written."""
        recorded = self.runner.recorded(self.loop.gradients)
        if recorded is None or not recorded.whole:
            return "eager"
        return "compiled" if recorded.compile else "recorded"

    def evaluate(self, episodes: int, *, by_step: str = "all") -> Report:
        """Score the first validation episodes as `metarun eval` does."""
        parts, position = self.parts, self.position
        with self.dealer.lock, Runner(evaluation_plan(parts, episodes)) as runner:
            settings: dict[str, Any] = {"split": "val", "episodes": episodes, "runner": runner, "by_step": by_step}
            return evaluate(parts.algorithm, position.params, position.state, parts.source, **settings)

    @property
    def waited(self) -> float:
        """Seconds that all steps have waited for episodes."""
        return self.dealer.waited

    def close(self) -> None:
        """End its threads."""
        self._open.close()
