"""Scores of each family of a source that mixes several, such as `task=mixture`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from metarun.engine.averages import interval, mean
from metarun.types import TaskSource

ByFamily = dict[str, dict[str, Any]]
"""Family -> its figures, by the names of `FIGURES`."""

FIGURES = (
    *("mean", "ci95", "median", "std", "episodes", "diverged", "not_finite", "finite_mean", "finite_ci95", "baseline"),
    *("nll", "nll_ci95", "joint_nll", "joint_nll_ci95", "coverage90", "coverage90_ci95", "ece", "by_step", "median_by_step"),
)
"""The figures of a report that each family has too; a figure that is None for a family is left out."""

SHOWN_FAMILIES = 6
"""Families that a line for a person names; report.json has them all."""


@runtime_checkable
class WithFamilies(Protocol):
    """A source of several families of tasks, which reports score one by one too (`by_family`)."""

    def families(self) -> Mapping[str, TaskSource]:
        """Return family -> a source of this family alone, in the order of the positions of `family`; empty where there is one family."""

    def family(self, split: str, indices: Tensor) -> Tensor:
        """Return the family of the episodes `indices` (T,), as positions (T,) in `families`."""


@dataclass(frozen=True)
class Families:
    """The families of some episodes. names: of the families. of: (T,), for each episode the position of its family in `names`."""

    names: Sequence[str]
    of: Tensor

    def named(self) -> list[str]:
        """Return the family of each episode by its name."""
        return [self.names[place] for place in self.of.tolist()]


def families_of(source: TaskSource, split: str, episodes: int) -> Families | None:
    """Return the families of the first episodes of a split; None for a source of one family."""
    if not isinstance(source, WithFamilies) or not (names := list(source.families())):
        return None
    return Families(names, source.family(split, torch.arange(episodes)))


def figures_of(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of a family out of a summary of its episodes alone."""
    return {name: summary[name] for name in FIGURES if summary.get(name) is not None}


def over_runs(each: Sequence[ByFamily | None]) -> ByFamily | None:
    """Return the figures of each family over several runs: the mean of the runs' means, and its interval by Student's t over the runs.

    None where the runs have no families.
    """
    known = [by_family for by_family in each if by_family]
    if not known or len(known) < len(each):
        return None
    return {name: _over_runs([by_family[name] for by_family in known]) for name in known[0]}


def _over_runs(figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    means = torch.tensor([each["mean"] for each in figures], dtype=torch.float64)
    counts = {name: sum(each[name] for each in figures) for name in ("diverged", "not_finite")}
    return {"mean": mean(means), "ci95": interval(means), "episodes": figures[0]["episodes"], "means": means.tolist(), **counts}


def values_to_log(metric: str, by_family: ByFamily | None) -> dict[str, float]:
    """Return the figures of a validation's families under their names in the log, such as "val/accuracy/omniglot"."""
    values: dict[str, Any] = {}
    for name, figures in (by_family or {}).items():
        values |= {f"val/{metric}/{name}": figures["mean"], f"val/ci95/{name}": figures["ci95"]}
        if metric != "accuracy":
            values[f"val/{metric}_median/{name}"] = figures["median"]
    return {name: math.nan if value is None else float(value) for name, value in values.items()}
