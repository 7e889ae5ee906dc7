"""The number of jobs of a sweep, and the line above each of them."""

from __future__ import annotations

import pytest

from metarun.cli.sweep_jobs import count_of

pytest_plugins = ("command_line",)
BASIC = {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper", "params": None}


@pytest.mark.parametrize(
    ("overrides", "sweeper", "count"),
    [
        (["algo=maml,reptile", "seed=0,1,2", "steps=10"], BASIC, 6),
        (["seed=range(0,5)"], BASIC, 5),
        (["task.sources=[a,b]", "seed=1"], BASIC, 1),
        (["seed=0,1"], {**BASIC, "params": {"seed": "0,1,2", "algo": "maml,oml"}}, 4),
        (["algo.inner_lr=0.1,0.2"], {"_target_": "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper", "n_trials": 20}, 20),
        (["seed=0,1"], {"_target_": "own.Sweeper"}, None),
    ],
)
def test_the_jobs_of_a_sweep_are_counted(overrides: list[str], sweeper: dict[str, object], count: int | None) -> None:
    assert count_of(overrides, sweeper) == count


def test_each_job_of_a_sweep_has_a_heading_and_hydra_prints_nothing(command_line, calls) -> None:  # type: ignore[no-untyped-def]
    answer = command_line("train", "-m", "seed=0,1", "steps=3", "hydra.sweep.dir=sweep")
    assert [line for line in answer.err.splitlines() if line] == ["job 1 of 2: seed=0", "job 2 of 2: seed=1"]
    assert "HYDRA" not in answer.out + answer.err
    assert "job 1" not in command_line("train", "seed=0").err
