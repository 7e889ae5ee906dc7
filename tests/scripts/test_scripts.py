"""The shell scripts and their set-up."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from small import composed

from metarun.commands.train import train

ROOT = Path(__file__).parents[2]
SHELL = [
    "scripts/setup.sh",
    "scripts/test",
    "scripts/quickstart",
    "scripts/benchmark",
    "scripts/gpu_check",
    "scripts/sanitize",
    ".ci/run",
]


@pytest.mark.parametrize("script", SHELL)
def test_a_shell_script_parses(script: str) -> None:
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


@pytest.mark.parametrize("script", ["scripts/test", "scripts/quickstart", "scripts/benchmark", "scripts/sanitize", ".ci/run"])
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
