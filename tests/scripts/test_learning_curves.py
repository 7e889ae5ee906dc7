"""Curves of what runs logged."""

from __future__ import annotations

from pathlib import Path

import learning_curves
import pytest


def run(folder: Path, *lines: str) -> Path:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_the_steps_are_those_that_have_the_number_and_a_line_that_a_kill_cut_short_is_passed_over(tmp_path: Path) -> None:
    lines = ['{"step": 2, "val/accuracy": 0.5}', '{"step": 3, "train/loss": 1.0}', '{"step": 4, "val/accuracy": 0.6}']
    folder = run(tmp_path / "a", *lines, '{"step": 6, "val/accuracy": null}')
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "val/acc')
    assert learning_curves.read(folder, "val/accuracy") == [(2, 0.5), (4, 0.6)]


def test_the_picture_is_written(tmp_path: Path) -> None:
    runs = [str(run(tmp_path / name, '{"step": 1, "val/accuracy": 0.5}', '{"step": 2, "val/accuracy": 0.6}')) for name in "ab"]
    assert learning_curves.main([*runs, "--names", "mean,sum", "--out", str(tmp_path / "c.png")]) == 0
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn_is_said_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(run(tmp_path / "a", '{"step": 1, "train/loss": 0.5}'))
    for given, sentence in (
        ([folder], "has no 'val/accuracy'; it has train/loss."),
        ([str(run(tmp_path / "b", '{"step": 1, "val/accuracy": null}'))], "was never a finite number"),
        ([str(run(tmp_path / "c"))], "it has nothing yet"),
        ([folder, "--names", "a,b"], "1 runs need as many different names"),
        ([folder, folder], "2 runs need as many different names"),
        ([str(tmp_path / "none")], "No such file"),
    ):
        assert learning_curves.main([*given, "--out", str(tmp_path / "c.png")]) == 2
        assert sentence in capsys.readouterr().err
