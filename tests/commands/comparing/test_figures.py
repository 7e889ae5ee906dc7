"""Figures of scores by inner step, and of families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from run_folders import write_evaluation

from metarun.commands.comparing.figures import draw_families, draw_steps
from metarun.commands.comparing.runs import find_runs
from metarun.commands.comparing.scores import grouped
from metarun.commands.comparing.scoring import Scored
from metarun.commands.comparing.settings import Setting
from metarun.errors import UserError


def groups(folder: Path, **reports: dict[str, Any]) -> list[list[Setting]]:
    for name, report in reports.items():
        metric = report.pop("metric", "accuracy")
        seed = report.pop("seed", 0)
        algo = name.partition("_")[0]
        whole = {"task": "omniglot", **report}
        write_evaluation(folder / name, [0.5, 0.5], run=folder / "gone", algo=algo, seed=seed, metric=metric, report=whole)
    return grouped([Scored(run, run.evaluation) for run in find_runs([folder])])


def test_each_setting_has_a_line_and_seeds_have_their_mean(tmp_path: Path):
    maml = {f"maml_{seed}": {"by_step": steps, "seed": seed} for seed, steps in enumerate(([0.2, None, 0.9], [0.2, 0.5, 0.7]))}
    found = groups(tmp_path / "e", **maml, nearest={"by_step": [0.52]})
    draw_steps(found, tmp_path / "curve.svg")
    drawn = (tmp_path / "curve.svg").read_text(encoding="utf-8")
    for text in ("maml  80.0 %", "52.0 %", "omniglot, 5-way 1-shot"):
        assert text in drawn


def test_a_figure_of_two_metrics_or_without_steps_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="these runs have 2; name runs of one task"):
        draw_steps(groups(tmp_path / "a", one={"metric": "mse"}, two={}), tmp_path / "a.png")
    with pytest.raises(UserError, match="by_step=all"):
        draw_steps(groups(tmp_path / "b", one={}), tmp_path / "a.png")
    with pytest.raises(UserError, match="one kind of tasks"):
        draw_families(groups(tmp_path / "c", one={}), tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_families_are_drawn(tmp_path: Path):
    by_family = {family: {"mean": 0.5, "ci95": 0.1} for family in ("line", "sinusoid")}
    draw_families(groups(tmp_path / "e", one={"by_family": by_family}, two={"by_family": by_family}), tmp_path / "families.svg")
    drawn = (tmp_path / "families.svg").read_text(encoding="utf-8")
    assert all(name in drawn for name in ("line", "sinusoid", "one", "two"))
