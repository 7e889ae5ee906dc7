"""What a logger learns about a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from metarun.records.loggers.logger import RunStart


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("outputs/glyphs-maml/2026-11-27_18-00-00", "glyphs-maml/2026-11-27_18-00-00"),
        ("outputs/multirun/2026-11-27/0_seed-1", "multirun/2026-11-27/0_seed-1"),
        ("runs/first", "runs/first"),
        ("../elsewhere/first", "first"),
    ],
)
def test_the_name_of_a_run_is_its_folder_as_tensorboard_shows_it(
    folder: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert RunStart(Path(folder).resolve()).name == RunStart((tmp_path / "here" / folder).resolve()).name == name


def test_a_run_that_begins_has_no_history() -> None:
    assert list(RunStart(Path("run")).history()) == []
