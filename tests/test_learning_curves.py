"""Curves of what runs logged."""

from __future__ import annotations

from pathlib import Path

import learning_curves
import pytest


def run(folder: Path, *lines: str) -> Path:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_the_steps_are_those_that_have_the_number_and_the_later_of_two_counts(tmp_path: Path) -> None:
    lines = ['{"step": 2, "val/accuracy": 0.5}', '{"step": 3, "train/loss": 1.0}', '{"step": 4, "val/accuracy": 0.6}']
    lines += ['{"step": 4, "val/accuracy": 0.7}', '{"step": 6, "val/accuracy": null}']
    assert learning_curves.read(run(tmp_path / "a", *lines), "val/accuracy") == [(2, 0.5), (4, 0.7)]


def test_the_picture_is_written(tmp_path: Path) -> None:
    runs = [str(run(tmp_path / name, '{"step": 1, "val/accuracy": 0.5}', '{"step": 2, "val/accuracy": 0.6}')) for name in "ab"]
    assert learning_curves.main([*runs, "--names", "mean,sum", "--out", str(tmp_path / "c.png")]) == 0
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn_is_said_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(run(tmp_path / "a", '{"step": 1, "train/loss": 0.5}'))
    for given, sentence in (
        ([folder], "has no 'val/accuracy'; it has train/loss."),
        ([folder, folder], "2 runs need as many different names"),
        ([str(tmp_path / "none")], "No such file"),
    ):
        assert learning_curves.main([*given, "--out", str(tmp_path / "c.png")]) == 2
        assert sentence in capsys.readouterr().err
