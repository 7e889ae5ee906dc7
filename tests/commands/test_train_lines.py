"""The lines that a training prints."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from metarun.commands.train_lines import describe, divided, idle_line, next_commands, told
from metarun.compute.plan import Plan
from metarun.engine.selection import Selection
from metarun.engine.training import Settings
from metarun.objectives import CLASSIFICATION, REGRESSION
from metarun.processes.ranks import OneProcess


def test_an_accuracy_is_a_percentage_with_its_interval() -> None:
    best = {"score": 0.93914, "mean": 0.93914, "ci95": 0.0052, "step": 1500}
    line = told(Selection.of(None, CLASSIFICATION), best)
    assert line == "best validation accuracy 93.91 % ± 0.52 at step 1,500"


def test_a_median_has_no_interval_and_the_mean_beside_it() -> None:
    line = told(Selection.of("median", REGRESSION), {"score": 11310.44, "mean": 0.25, "step": 20})
    assert line.startswith("best validation mse 11,310.4 at step 20 (chosen by the median mse over the validation tasks, mean mse 0.2500)")


def test_a_run_without_a_best_checkpoint_says_so() -> None:
    assert told(Selection.of(None, REGRESSION), None).startswith("no checkpoint is the best one")


@pytest.mark.parametrize("folder", ["runs/a b", "runs/it's [1]=x"])
def test_the_next_commands_can_be_pasted(folder: str) -> None:
    """A folder with a space and one with quotes; `tests/files/test_commands.py` reads such commands back."""
    best = {"score": 1.0, "mean": 1.0, "step": 1, "kept": [{"step": 1}, {"step": 2}]}
    lines = next_commands(Path(folder), best, {"backbone": {"_target_": "mine.Net"}})
    commands = [shlex.split(line.split(" with: ")[1]) for line in lines]
    assert [each[:2] for each in commands] == [["metarun", "eval"]] * 2
    assert all(each[-1] == "trust=[mine]" for each in commands)
    assert commands[1][3] == "best=2"


def test_a_plan_is_said_in_words() -> None:
    assert describe(Plan(chunk=1, workers=2, threads=1, compile=True), "cpu") == "1 task at once on 2 workers with 1 thread, compiled"
    assert describe(Plan(chunk=8, kernels="c"), "cuda:0") == "8 tasks at once on cuda:0, with C kernels"


class Four(OneProcess):
    """Four processes."""

    size = 4


def test_processes_that_have_no_task_are_named_with_the_remedy() -> None:
    """Five tasks in chunks of two are three chunks, too few for four processes."""
    divided_settings = Settings(tasks_per_step=5, plan=Plan(2), ranks=Four())
    assert idle_line(divided_settings) == [
        "metarun: the 5 tasks of a step make 3 chunks of 2, so 4 processes are too many; lower device.task_chunk, or start 3"
    ]
    assert not idle_line(replace(divided_settings, plan=Plan(1)))
    assert not idle_line(Settings(tasks_per_step=1))


def test_the_number_of_processes_is_told_where_there_are_several() -> None:
    assert divided(1) == ""
    assert divided(3) == ", divided among 3 processes"
