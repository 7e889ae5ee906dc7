"""Several runs of one setting: the interval over training seeds."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from metarun.commands.seeds import check_runs, lines, over_runs
from metarun.engine.report import Report
from metarun.errors import UserError
from metarun.records.checkpoint import Checkpoint


def report(mean: float, diverged: int = 0, metric: str = "accuracy") -> Report:
    known: dict[str, Any] = {field.name: None for field in dataclasses.fields(Report)}
    return Report(**known | {"metric": metric, "mean": mean, "ci95": 0.01, "episodes": 600, "diverged": diverged, "not_finite": diverged})


def run(seed: int, **config: Any) -> Checkpoint:
    return Checkpoint(9, {}, {}, config={"seed": seed, "steps": 9, "algo": {"inner_lr": 0.1}, **config})


def test_the_interval_over_three_runs_is_that_of_student_with_two_degrees_of_freedom() -> None:
    """Means 0.2, 0.4, 0.9: mean 0.5, interval 4.3027 √(0.13 / 3), middle half (0.05 + 0.4 + 0.225) / 1.5."""
    figures = over_runs([report(0.9), report(0.2, 1), report(0.4, 2)])
    assert figures["mean"] == pytest.approx(0.5)
    assert figures["ci95"] == pytest.approx(4.3026527 * math.sqrt(0.13 / 3))
    assert figures["iqm"] == pytest.approx(0.45)
    assert (figures["ci95_over"], figures["diverged"], figures["not_finite"], figures["episodes"]) == ("training runs", 3, 3, 600)


def test_one_run_whose_mean_is_infinite_makes_the_mean_over_runs_infinite() -> None:
    assert over_runs([report(0.9), report(math.inf)])["mean"] == math.inf


def test_each_run_has_a_line_and_the_last_line_says_over_what_the_interval_is() -> None:
    reports, members = [report(0.9), report(0.2, 1), report(0.4)], [run(0), run(1), run(2)]
    facts = {"ways": 5, "shots": 1, "queries": 15, "norm": "batch", "inner_steps": 3, "split": "test", "seed": 0}
    text = lines(reports, members, facts, over_runs(reports))
    assert text[1] == "seed 1: accuracy 20.00 % ± 1.00 over 600 episodes, 1 diverged"
    assert text[3].startswith("accuracy 50.00 % ± 89.57, interquartile mean 45.00 %  [95 % interval over 3 training seeds, each on 600")
    assert text[3].endswith("3 inner steps, seed 0, 1 diverged]")


def test_the_bound_of_the_task_stands_beside_the_mean_over_runs() -> None:
    bayes = {"nll": 1.0, "joint_nll": 0.25, "mse": 2.0, "point_nll": 1.75}
    reports = [dataclasses.replace(report(mean, metric="mse"), bayes=bayes) for mean in (2.5, 3.5)]
    facts = {"ways": None, "shots": 2, "queries": 100, "norm": None, "inner_steps": 3, "split": "test", "seed": 0}
    figures = over_runs(reports)
    assert figures["bayes"] == bayes
    assert "; Bayes nll 1.000, joint 0.250, mse 2.0000" in lines(reports, [run(0), run(1)], facts, figures)[-1]


def test_errors_in_units_have_an_interval_over_the_runs() -> None:
    errors = [{"price": {"rmse": value, "mae": 2.0, "unit": 3.0}} for value in (10.0, 12.0)]
    reports = [dataclasses.replace(report(1.0, metric="mse"), by_target=each) for each in errors]
    facts = {"ways": None, "shots": 2, "queries": 100, "norm": None, "inner_steps": 3, "split": "test", "seed": 0}
    figures = over_runs(reports)
    assert figures["by_target"]["price"]["rmse"] == 11.0
    assert "; price: RMSE 11 ± 13, MAE 2 ± 0" in lines(reports, [run(0), run(1)], facts, figures)[-1]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([run(0), run(1), run(0)], "a.pt and c.pt were both trained with seed=0"),
        ([run(0), run(1, steps=5)], "b.pt has steps=5, and a.pt has 9"),
        ([run(0), run(1, algo={"inner_lr": 0.2})], "b.pt has algo.inner_lr=0.2, and a.pt has 0.1"),
        ([run(0), run(1, extra=1)], "b.pt has extra=1, and a.pt has None"),
        ([run(0, task={"eval_seed": 0}), run(1, task={"eval_seed": 1})], "b.pt has task.eval_seed=1, and a.pt has 0"),
    ],
)
def test_runs_that_are_no_seeds_of_one_setting_are_refused(members: list[Checkpoint], words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_runs([Path(f"{letter}.pt") for letter, _ in zip("abc", members, strict=False)], members)


def test_runs_may_differ_in_their_device_their_log_and_the_run_that_they_start_from() -> None:
    members = [run(0, device={"name": "cpu"}, init_from="a"), run(1, device={"name": "cuda"}, init_from="b", task={"seed": 1, "path": "b"})]
    check_runs([Path("a.pt"), Path("b.pt")], members)


def test_the_seeds_of_a_mixtures_sources_may_differ_with_the_runs() -> None:
    members = [run(seed, task={"seed": seed, "sources": {"line": {"seed": seed}}}) for seed in (0, 1)]
    check_runs([Path("a.pt"), Path("b.pt")], members)
