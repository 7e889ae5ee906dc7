"""A folder with a run is not overwritten, and nothing is written through a planted link or pipe."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from metarun.errors import UserError
from metarun.files.run_folder import check_places, refuse_run


@pytest.mark.parametrize(
    ("name", "held"),
    [("checkpoints/last.pt", "checkpoints"), ("checkpoints/best.pt", "checkpoints"), ("checkpoints/step_5.pt", "checkpoints")],
)
def test_a_folder_with_checkpoints_is_refused_whether_or_not_it_has_metrics(tmp_path: Path, name: str, held: str) -> None:
    run = tmp_path / "a b"
    (run / name).parent.mkdir(parents=True)
    (run / name).touch()
    (run / "metrics.jsonl").touch()
    with pytest.raises(UserError, match=f"holds the {held} of another run; .* metarun train 'resume=.*a b'$"):
        refuse_run(run)
    (run / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="holds the checkpoints and metrics of another run"):
        refuse_run(run)


def test_a_folder_without_results_is_free(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / ".hydra").mkdir()
    (tmp_path / "metrics.jsonl").touch()
    refuse_run(tmp_path)
    refuse_run(tmp_path / "nowhere")
    check_places(tmp_path)


@pytest.mark.parametrize(
    "name", [".hydra", ".hydra/config.yaml", "metarun.log", "metrics.jsonl", "checkpoints", "tensorboard", "failed.jsonl"]
)
def test_a_planted_link_is_refused(tmp_path: Path, name: str) -> None:
    link = tmp_path / "sweep/0_job" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=f"{name} is a link"):
        check_places(tmp_path / "sweep/0_job")
    with pytest.raises(UserError, match=f"{name} is a link"):
        check_places(tmp_path / "sweep", sweep=True)


@pytest.mark.parametrize("name", [".hydra/config.yaml", "metarun.log", "metrics.jsonl", "checkpoints", "failed.jsonl", "multirun.yaml"])
def test_a_planted_pipe_is_refused(tmp_path: Path, name: str) -> None:
    """Else a command that opens it to write waits for a reader without end."""
    pipe = tmp_path / "sweep/0_job" / name
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)
    with pytest.raises(UserError, match=f"{name} is a pipe or a device"):
        check_places(tmp_path / "sweep/0_job")
    with pytest.raises(UserError, match=f"{name} is a pipe or a device"):
        check_places(tmp_path / "sweep", sweep=True)
