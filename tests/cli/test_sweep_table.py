"""The table at the end of a sweep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_folders import write_evaluation, write_run, write_typed

from metarun.cli import sweep_table
from metarun.cli.sweep_table import finish, tables_of


def test_a_sweep_prints_its_table_and_writes_it_beside_its_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for seed in (0, 1):
        write_run(tmp_path / f"{seed}_seed-{seed}", [0.4, 0.5], seed=seed, typed=[f"seed={seed}"])
    write_typed(tmp_path / "2_seed-2", ["seed=2"])
    (tmp_path / "failed.jsonl").write_text(json.dumps({"job": "2_seed-2", "error": "no", "bug": False}) + "\n")
    finish(tmp_path)
    out = capsys.readouterr().out
    assert "maml" in out
    assert "2_seed-2 failed: no" in out
    assert out.splitlines()[-1] == f"score them on the same test tasks with: metarun compare {tmp_path} split=test"
    assert "| maml" in (tmp_path / "compare.md").read_text()
    (table,) = json.loads((tmp_path / "compare.json").read_text())
    assert table["rows"][0]["mean"] == 0.5


def test_a_sweep_of_evaluations_has_the_table_of_their_scores(tmp_path: Path):
    for shots in (1, 5):
        folder = write_evaluation(tmp_path / str(shots), [0.5, 0.1 * shots], run=tmp_path / "gone", settings={"norm": f"n{shots}"})
        write_typed(folder, [f"checkpoint={tmp_path}/gone", f"norm=n{shots}"])
    (table,) = tables_of(tmp_path)
    assert [row[0] for row in table.rows] == ["norm=n5", "norm=n1"]


def test_a_sweep_without_a_score_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_typed(tmp_path / "0_a", ["algo=maml"])
    finish(tmp_path)
    finish(None)
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "compare.md").exists()


def test_a_table_that_cannot_be_made_or_written_is_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    write_run(tmp_path / "0_a")
    (tmp_path / "compare.md").mkdir()
    finish(tmp_path)
    assert "maml" in capsys.readouterr().out, "the other file is written"
    assert (tmp_path / "compare.json").is_file()

    def broken(sweep: Path) -> list[object]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(sweep_table, "tables_of", broken)
    finish(tmp_path)
    assert capsys.readouterr().out == ""


def test_a_long_table_is_printed_in_part_and_written_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for number in range(25):
        write_run(tmp_path / f"{number}_a", [0.01 * number], typed=[f"algo.inner_lr={number}"], algo__inner_lr=number)
    finish(tmp_path)
    out = capsys.readouterr().out
    assert out.count("algo.inner_lr=") == 20
    assert "5 more rows are in compare.md and compare.json." in out
    assert (tmp_path / "compare.md").read_text().count("algo.inner_lr=") == 25
