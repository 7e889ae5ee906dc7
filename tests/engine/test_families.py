"""Figures of each family of tasks."""

from __future__ import annotations

import math

import pytest
import torch
from small import Lines, few_shot

from metarun.engine.families import Families, families_of, over_runs, values_to_log
from metarun.engine.report import summarise
from metarun.objectives import CLASSIFICATION, REGRESSION
from metarun.tasks.curves import line
from metarun.tasks.mixture import Mixture, mixture
from metarun.tasks.sinusoid import sinusoid

SCORES = [0.2, 0.9, 0.4, 0.7, 0.6]
FAMILIES = Families(["a", "b", "c"], torch.tensor([0, 1, 0, 1, 0]))


def scored(values: list[float], **more: torch.Tensor) -> dict[str, torch.Tensor]:
    count = len(values)
    return {
        "by_step": torch.tensor(values)[:, None],
        "steps": torch.zeros(count, 1, dtype=torch.int64),
        "finite": torch.tensor(values).isfinite().float(),
        **more,
    }


def classified(values: list[float]) -> dict[str, torch.Tensor]:
    one = torch.ones(len(values), 1)
    return scored(values, nll=torch.tensor(values), spread=torch.tensor(values), confidence=one, right=one, real=one)


def test_each_family_has_the_mean_and_the_interval_of_its_own_episodes():
    """a: 0.2, 0.4, 0.6: mean 0.4, std 0.2, t = 4.302653: ± 0.496828. b: 0.9, 0.7: mean 0.8, std 0.1414214, t = 12.706205: ± 1.270620."""
    report = summarise(CLASSIFICATION, classified(SCORES), families=FAMILIES)
    assert report.mean == pytest.approx(0.56)
    assert list(report.by_family) == ["a", "b"]
    a, b = report.by_family.values()
    assert (a["mean"], a["ci95"], a["episodes"]) == (pytest.approx(0.4), pytest.approx(0.496828, abs=1e-5), 3)
    assert (b["mean"], b["ci95"], b["episodes"]) == (pytest.approx(0.8), pytest.approx(1.270620, abs=1e-5), 2)
    assert report.families == ["a", "b", "a", "b", "a"]
    assert "families" not in report.summary()


def test_a_diverged_episode_counts_in_its_family_alone():
    values = [1.0, math.inf, 1.0, 1.0, 1.0]
    report = summarise(REGRESSION, scored(values, baseline=torch.ones(5)), families=FAMILIES)
    assert report.by_family["b"]["mean"] == math.inf
    assert (report.by_family["b"]["finite_mean"], report.by_family["b"]["diverged"]) == (1.0, 1)
    assert (report.by_family["a"]["mean"], report.by_family["a"]["diverged"]) == (1.0, 0)


def test_a_source_of_one_kind_has_no_families():
    assert families_of(few_shot(), "val", 4) is None
    assert families_of(Lines(), "val", 4) is None
    assert summarise(CLASSIFICATION, classified(SCORES)).by_family is None


def test_the_families_of_an_evaluation_come_equally_often_also_under_noise():
    for source in (Mixture({"a": sinusoid(), "b": line()}), mixture(sources={"a": sinusoid(), "b": line()}, noise=0.1)):
        found = families_of(source, "test", 5)
        assert found.named() == ["a", "b", "a", "b", "a"]
    assert families_of(mixture(sources={"a": sinusoid()}, noise=0.1).source.sources["a"], "test", 5) is None


def test_over_runs_a_family_has_the_mean_of_the_runs_with_its_interval():
    """1, 2, 3: mean 2, std 1, ± 4.302653 / √3 = 2.484138."""
    runs = [{"a": {"mean": mean, "episodes": 7, "diverged": 1, "not_finite": 0}} for mean in (1.0, 2.0, 3.0)]
    found = over_runs(runs)["a"]
    assert (found["mean"], found["ci95"]) == (2.0, pytest.approx(2.484138, abs=1e-5))
    assert (found["episodes"], found["diverged"], found["means"]) == (7, 3, [1.0, 2.0, 3.0])
    assert over_runs([None, None]) is None


def test_a_validation_logs_each_family_under_its_name():
    report = summarise(CLASSIFICATION, classified(SCORES), families=FAMILIES)
    values = values_to_log("accuracy", report.by_family)
    assert set(values) == {"val/accuracy/a", "val/ci95/a", "val/accuracy/b", "val/ci95/b"}
    assert values["val/accuracy/b"] == pytest.approx(0.8)
    of_errors = summarise(REGRESSION, scored(SCORES, baseline=torch.ones(5)), families=FAMILIES)
    assert values_to_log("mse", of_errors.by_family)["val/mse_median/a"] == pytest.approx(0.4)
    assert values_to_log("mse", None) == {}
