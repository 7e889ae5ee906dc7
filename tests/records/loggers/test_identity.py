"""The id under which a service knows a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metarun.errors import UserError
from metarun.records.loggers.identity import Noted, noted, sweep_of
from metarun.records.loggers.logger import RunStart


def made() -> str:
    return "new"


def test_a_resumed_run_has_the_id_of_its_beginning(tmp_path: Path) -> None:
    assert noted(RunStart(tmp_path), "wandb", lambda: "abc") == Noted("abc", False)
    assert noted(RunStart(tmp_path), "mlflow", lambda: "def") == Noted("def", False)
    resumed = RunStart(tmp_path, resume_step=5)
    assert noted(resumed, "wandb", made) == Noted("abc", True)
    assert noted(resumed, "mlflow", made) == Noted("def", True)


def test_a_logger_chosen_at_a_resume_gets_a_new_id_and_keeps_it(tmp_path: Path) -> None:
    resumed = RunStart(tmp_path, resume_step=5)
    assert noted(resumed, "wandb", made) == Noted("new", False)
    assert noted(resumed, "wandb", lambda: "other") == Noted("new", True)


LONG = '{"wandb": "' + 70 * "y" + '"}'


@pytest.mark.parametrize("content", ["", "[1]", "3", '{"wandb": 5}', '{"wandb": "a/../b"}', LONG, '{"wandb": "a\\n"}'])
def test_an_id_that_is_no_short_word_is_not_used(tmp_path: Path, content: str) -> None:
    (tmp_path / "loggers.json").write_text(content)
    assert noted(RunStart(tmp_path, resume_step=1), "wandb", made) == Noted("new", False)
    assert json.loads((tmp_path / "loggers.json").read_text()) == {"wandb": "new"}


def test_a_link_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "diary").write_text("mine")
    (tmp_path / "loggers.json").symlink_to(tmp_path / "diary")
    with pytest.raises(UserError, match=r"loggers\.json is a link"):
        noted(RunStart(tmp_path), "wandb", made)


def test_a_job_of_a_sweep_knows_the_sweep_by_hydras_file(tmp_path: Path) -> None:
    assert sweep_of(RunStart(tmp_path / "sweep/0_seed-1")) is None
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/multirun.yaml").write_text("")
    assert sweep_of(RunStart(tmp_path / "sweep/0_seed-1")) == "sweep"
