"""The shell scripts' set-up and the table of results."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from small import composed

from metarun.commands.train import train

ROOT = Path(__file__).parents[2]
SHELL = [
    "scripts/setup.sh",
    "scripts/test",
    "scripts/quickstart",
    "scripts/compare",
    "scripts/benchmark",
    "scripts/gpu_check",
    "scripts/sanitize",
    ".ci/run",
]


@pytest.fixture(scope="module")
def results_table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("results_table", ROOT / "scripts" / "results_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(file: Path, **changes: Any) -> Path:
    report = {
        "metric": "accuracy",
        "mean": 0.97314,
        "ci95": 0.00216,
        "episodes": 600,
        "diverged": 0,
        "split": "test",
        "ways": 5,
        "shots": 1,
        "queries": 15,
        "norm": "batch",
        "inner_steps": 3,
        "config": {"options": {"algo": "maml", "task": "omniglot"}},
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**report, **changes}), encoding="utf-8")
    return file


def cells(printed: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines()]


def test_an_accuracy_is_printed_in_percent_with_its_interval(
    results_table: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert results_table.main([str(write(tmp_path / "report.json"))]) == 0
    head, _, row = cells(capsys.readouterr().out)
    assert head == ["algorithm", "task", "setting", "norm", "inner steps", "episodes", "score"]
    assert row == ["maml", "omniglot", "5-way 1-shot, 15 queries", "batch", "3", "600", "97.31 % ± 0.22"]


def test_a_mean_squared_error_and_its_diverged_episodes_are_printed(
    results_table: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "report.json", metric="mse", mean=0.43128, ci95=0.0402, ways=None, shots=10, queries=100, norm=None, diverged=4)
    assert results_table.main([str(tmp_path)]) == 0
    head, _, row = cells(capsys.readouterr().out)
    assert head == ["algorithm", "task", "setting", "inner steps", "episodes", "score", "diverged"]
    assert row == ["maml", "omniglot", "10-shot, 100 queries", "3", "600", "mse 0.431 ± 0.04", "4"]


def test_reports_of_families_get_a_table_with_ranks_and_their_average(
    results_table: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """a: 0.9 and 0.8 differ by more than √2 · 0.02, ranks 1 and 2. b: 0.50 and 0.52 do not, so both have 1.5."""
    for name, means in (("first", (0.9, 0.5)), ("second", (0.8, 0.52))):
        by_family = {family: {"mean": mean, "ci95": 0.02} for family, mean in zip("ab", means, strict=True)}
        write(tmp_path / name / "report.json", by_family=by_family)
    assert results_table.main([str(tmp_path)]) == 0
    *_, head, _, first, second = cells(capsys.readouterr().out)
    assert head == ["model", "a", "b", "average rank"]
    assert first == ["maml", "90.00 % ± 2.00 (1)", "50.00 % ± 2.00 (1.5)", "1.25"]
    assert second == ["maml, norm=batch", "80.00 % ± 2.00 (2)", "52.00 % ± 2.00 (1.5)", "1.75"]


def test_reports_of_different_families_have_no_table_of_ranks(
    results_table: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abc":
        write(tmp_path / name / "report.json", by_family={name: {"mean": 0.5, "ci95": 0.1}, "d": {"mean": 0.5, "ci95": 0.1}})
    assert results_table.main([str(tmp_path)]) == 0
    assert "rank" not in capsys.readouterr().out


def test_rows_come_in_the_order_of_the_arguments(results_table: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("b", "a"):
        write(tmp_path / name / "report.json", config={"options": {"algo": name, "task": "glyphs"}})
    assert results_table.main([str(tmp_path / "b"), str(tmp_path / "a")]) == 0
    assert [row[0] for row in cells(capsys.readouterr().out)[2:]] == ["b", "a"]


def test_the_report_that_training_writes_is_passed_over(
    results_table: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.json").write_text('{"split": "val", "metric": "accuracy"}', encoding="utf-8")
    write(tmp_path / "eval" / "report.json")
    assert results_table.main([str(tmp_path)]) == 0
    assert len(cells(capsys.readouterr().out)) == 3


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "there is no report of metarun eval"), ("{", "is not JSON"), ('{"metric": "accuracy"}', "there is no report of metarun eval")],
)
def test_a_folder_without_a_report_is_a_sentence_and_exit_2(
    results_table: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, sentence: str
) -> None:
    if content is not None:
        (tmp_path / "report.json").write_text(content, encoding="utf-8")
    assert results_table.main([str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err


def test_a_figure_is_drawn_with_a_line_for_each_report(results_table: ModuleType, tmp_path: Path) -> None:
    maml = write(tmp_path / "a" / "report.json", by_step=[0.2, None, 0.93])
    nearest = write(tmp_path / "b" / "report.json", by_step=[0.52], config={"options": {"algo": "nearest", "task": "omniglot"}})
    assert results_table.main([str(maml), str(nearest), str(maml), "--figure", str(tmp_path / "curve.svg")]) == 0
    drawn = (tmp_path / "curve.svg").read_text(encoding="utf-8")
    for text in ("maml  93.0 %", "maml, norm=batch  93.0 %", "nearest  52.0 %", "omniglot, 5-way 1-shot, 15 queries"):
        assert f"<!-- {text} -->" in drawn


def test_a_figure_of_two_metrics_is_refused(results_table: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [write(tmp_path / name / "report.json", metric=name, by_step=[0.5]) for name in ("accuracy", "mse")]
    assert results_table.main([*map(str, files), "--figure", str(tmp_path / "curve.png")]) == 2
    assert "a figure shows one metric, but these reports have accuracy and mse." in capsys.readouterr().err
    assert not (tmp_path / "curve.png").exists()


@pytest.mark.parametrize("script", SHELL)
def test_a_shell_script_parses(script: str) -> None:
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


@pytest.mark.parametrize(
    "script", ["scripts/test", "scripts/quickstart", "scripts/compare", "scripts/benchmark", "scripts/sanitize", ".ci/run"]
)
def test_a_script_can_be_started_by_its_name(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    assert (ROOT / script).read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Make a folder whose .venv records what it is asked to do instead of doing it."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").write_text('#!/bin/sh\n[ "$1" = -c ] || echo "$@" >> asked\n', encoding="utf-8")
    (tmp_path / ".venv" / "bin" / "python").chmod(0o755)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("", encoding="utf-8")
    return tmp_path


def set_up(clone: Path, extras: str = "") -> list[str]:
    """Source setup.sh and return the words of each install that it did."""
    asked = clone / "asked"
    asked.unlink(missing_ok=True)
    subprocess.run(["bash", "-euc", f"extras={extras}; source {ROOT}/scripts/setup.sh"], cwd=clone, check=True, capture_output=True)
    return asked.read_text(encoding="utf-8").splitlines() if asked.exists() else []


def test_the_second_call_installs_nothing(clone: Path) -> None:
    (first,) = set_up(clone, "dev")
    assert first.endswith("-c constraints.txt -e .[dev]")
    assert set_up(clone, "dev") == []


def test_what_the_tests_need_serves_the_quickstart_and_not_the_other_way_round(clone: Path) -> None:
    assert len(set_up(clone, "dev")) == 1
    assert set_up(clone) == []
    (clone / ".venv" / ".installed").unlink()
    assert len(set_up(clone)) == 1
    assert len(set_up(clone, "dev")) == 1


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_change_of_the_requirements_installs_again(clone: Path, name: str) -> None:
    set_up(clone, "dev")
    (clone / name).write_text("torch==0\n", encoding="utf-8")
    assert len(set_up(clone, "dev")) == 1


def test_without_a_new_enough_python_the_scripts_say_so(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": "/nowhere/python3.12"}
    done = subprocess.run(
        ["bash", "-euc", f"source {ROOT}/scripts/setup.sh"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "PYTHON=/path/to/python3.12" in done.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("algo", ["protonet", "scratch", "nearest"])
def test_the_quickstart_experiment_runs_with_each_algorithm_that_the_script_compares(algo: str, tmp_path: Path) -> None:
    """The baselines take the settings of experiment=quickstart, so that file must set no key that only Prototypical Networks have."""
    words = ["experiment=quickstart", f"algo={algo}", "steps=0", "eval_episodes=2", "logger=jsonl"]
    words += ["task.samples=2", "task.queries=1", "task.train_queries=1"]  # fewer pictures to draw
    words += ["algo.max_inner_steps=2"] if algo == "scratch" else []  # in place of 100, which take most of a minute
    train(composed(*words), tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints" / "best.pt").is_file()


def compare(*words: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [str(ROOT / "scripts/compare"), *words], env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_runs_of_a_sweep_are_scored_on_the_same_episodes_in_one_table(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    words = ["-m", "experiment=smoke", "algo=protonet,nearest", "steps=1", "eval_episodes=2", f"hydra.sweep.dir={sweep}"]
    subprocess.run([sys.executable, "-m", "metarun", "train", *words], capture_output=True, check=True, timeout=300)
    done = compare(str(sweep), "episodes=3", "task.queries=1")
    assert done.returncode == 0, done.stderr
    head, _, *rows = (line.split() for line in done.stdout.splitlines())
    assert "score" in head
    assert [row[1] for row in rows] == ["protonet", "nearest"]
    assert len(list(sweep.glob("evaluations/*/report.json"))) == 2
    again = compare(str(sweep))
    assert again.returncode == 2
    assert "already exists" in again.stderr


@pytest.mark.parametrize(("words", "sentence"), [([], "name the folder of a sweep"), (["nowhere"], "there is no folder 'nowhere'")])
def test_what_is_no_sweep_is_told_in_a_sentence(words: list[str], sentence: str) -> None:
    done = compare(*words)
    assert done.returncode == 2
    assert sentence in done.stderr


def test_a_folder_without_runs_is_told_in_a_sentence(tmp_path: Path) -> None:
    done = compare(str(tmp_path))
    assert done.returncode == 2
    assert "contains no run with checkpoints" in done.stderr
