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
from metarun.engine.dealing import Dealer
from metarun.engine.evaluation import evaluate
from metarun.engine.report import Report
from metarun.engine.training import _step, gradients_of
from metarun.episodes import deal
from metarun.types import Aux, Episode, Params, State, TaskSource
from metarun.wiring.build import build, build_settings, evaluation_plan, start

from .variants import composed


class Run:
    """A training run that is stepped by hand. wrap: what to put around the task source."""

    def __init__(self, overrides: Sequence[str], *, wrap: Callable[[TaskSource], TaskSource] = lambda source: source) -> None:
        parts = build(composed(overrides))
        self.parts, self.settings = replace(parts, source=wrap(parts.source)), build_settings(parts)
        self.position, self.optimizer = start(parts, self.settings)
        same: dict[str, Any] = {name: getattr(self.settings, name) for name in ("steps", "tasks_per_step", "seed", "device")}
        self._open = ExitStack()
        self.dealer = self._open.enter_context(Dealer(self.parts.source, "train", first_step=0, **same))
        self.runner = self._open.enter_context(Runner(self.settings.plan))

    def step(self) -> None:
        """Take one outer step: deal, differentiate, update."""
        _step(self.parts.algorithm, self.dealer, self.position, self.optimizer, self.settings, self.runner)

    def settle(self) -> None:
        """Wait until as many episodes are dealt ahead as there will ever be: a turn then pays for as many as it takes."""
        wait(list(self.dealer._ahead))

    def gradients(self, dtype: torch.dtype, count: int) -> tuple[Tensor, Params]:
        """Return mean loss and gradient of the first training tasks. In float32 they come from the very programs that a step runs."""
        algorithm, position, indices = self.parts.algorithm, self.position, torch.arange(count)
        batch = (deal(self.parts.source, "train", indices), draws.key(self.settings.seed, "train", indices))
        shared = (position.params, position.state, torch.tensor(position.step))
        shared, batch = tree_map_only(Tensor, lambda leaf: leaf.to(dtype) if leaf.is_floating_point() else leaf, (shared, batch))
        times = self.settings.steps if dtype == torch.float32 else 1  # once is not recorded, and so not compiled

        def function(shared: tuple[Params, State, Tensor], part: tuple[Episode, Tensor]) -> tuple[Params, Tensor, Aux]:
            params, state, step = shared
            return gradients_of(algorithm, params, state, *part, step)

        parts = list(self.runner.map("gradients", function, shared, [batch], times=times))
        mean = {name: torch.stack([gradients[name] for gradients, _, _ in parts]).sum(dim=0) / count for name in position.params}
        return torch.cat([losses for _, losses, _ in parts]).mean(), mean

    @property
    def mode(self) -> str:
        """How steps run: "compiled" or "recorded" as flat programs, or "eager", operation by operation, as they are written."""
        recorded = self.runner._recorded.get("gradients")
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
