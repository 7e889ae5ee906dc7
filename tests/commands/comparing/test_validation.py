"""The table of runs by their validation scores."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from run_folders import write_run, write_typed

from metarun.commands.comparing.runs import find_runs
from metarun.commands.comparing.validation import shortened, span, validation_tables


def test_rows_are_sorted_by_the_score_and_name_what_differs(tmp_path: Path):
    for algo, scores in (("maml", [0.4, 0.5]), ("protonet", [0.9, 0.7]), ("reptile", [])):
        write_run(tmp_path / algo, scores, algo=algo, typed=[f"algo={algo}"], finished=bool(scores))
    (table,) = validation_tables(find_runs([tmp_path]))
    assert table.title == "glyphs, 5-way 1-shot: mean accuracy of validation tasks, the highest first"
    assert table.head == ("run", "seeds", "accuracy", "std", "best at", "steps", "time", "")
    assert table.rows == (
        ("protonet", "", "90.00 % ± 2.00", "", "30", "60", "0:20", ""),
        ("maml", "", "50.00 % ± 2.00", "", "60", "60", "0:20", ""),
        ("reptile", "", "–", "", "", "0", "", "stopped"),
    )
    assert table.notes == ("±: half the 95 % interval over the validation tasks.",)


def test_runs_that_differ_in_their_seed_share_a_row_with_mean_interval_and_deviation(tmp_path: Path):
    """0.4, 0.5 and 0.6: mean 0.5, deviation 0.1, half the interval 4.3027 * 0.1 / √3 = 0.2484."""
    for seed, score in enumerate((0.4, 0.5, 0.6)):
        write_run(tmp_path / str(seed), [score], seed=seed, typed=[f"seed={seed}"])
    (table,) = validation_tables(find_runs([tmp_path]))
    assert table.rows == (("maml", "3", "50.00 % ± 24.84", "10.00", "30", "30", "0:10", ""),)
    assert table.data[0]["ci95"] == pytest.approx(4.3026527 * 0.1 / math.sqrt(3))
    assert [run["score"] for run in table.data[0]["runs"]] == [0.4, 0.5, 0.6]
    (table,) = validation_tables(find_runs([tmp_path]), every_seed=True)
    assert [row[0] for row in table.rows] == ["maml", "  seed=0", "  seed=1", "  seed=2"]
    assert table.rows[1][2] == "40.00 % ± 2.00"


def test_a_seed_without_a_score_is_counted_and_a_failed_job_is_explained(tmp_path: Path):
    for seed, score in enumerate((0.4, 0.6, None)):
        write_run(tmp_path / f"{seed}_a", [] if score is None else [score], seed=seed, typed=[f"seed={seed}"], finished=score is not None)
    write_typed(tmp_path / "3_b", ["seed=3"])
    failed = [{"job": "2_a", "error": "a loss is not finite", "bug": False}, {"job": "3_b", "error": "x", "bug": True}]
    (tmp_path / "failed.jsonl").write_text("\n".join(map(json.dumps, failed)))
    (table,) = validation_tables(find_runs([tmp_path]))
    assert table.rows[0][:3] == ("maml", "2 of 3", "50.00 % ± 127.06")
    assert table.rows[0][-1] == "1 failed"
    assert table.rows[1][-1] == "failed"
    assert table.notes[-2:] == ("2_a failed: a loss is not finite", "3_b failed: x")


def test_scores_of_other_tasks_or_metrics_stand_in_tables_of_their_own(tmp_path: Path):
    write_run(tmp_path / "a", [0.4], typed=["task.shots=1"])
    write_run(tmp_path / "b", [0.6], typed=["task.shots=5"], task__shots=5)
    write_run(tmp_path / "c", [0.6], metric="mse", task="sinusoid", typed=["task=sinusoid"])
    write_run(tmp_path / "d", [0.7], typed=["task.train_ways=20"], task__train_ways=20)
    tables = validation_tables(find_runs([tmp_path]))
    titles = ["glyphs, 5-way 1-shot: mean accuracy", "glyphs, 5-way 5-shot: mean accuracy", "sinusoid, 5-way 1-shot: median mse"]
    assert [table.title.partition(" of validation")[0] for table in tables] == titles
    assert [len(table.rows) for table in tables] == [2, 1, 1], "training ways change no validation task"
    assert tables[2].title.endswith("the lowest first")


def test_tables_of_one_task_are_told_apart_by_the_key_that_differs(tmp_path: Path):
    for split in ("a", "b"):
        write_run(tmp_path / split, [0.4], task__split=split)
    titles = [table.title.partition(":")[0] for table in validation_tables(find_runs([tmp_path]))]
    assert titles == ["glyphs, 5-way 1-shot, task.split=a", "glyphs, 5-way 1-shot, task.split=b"]


def test_validation_tasks_of_different_classes_are_noted(tmp_path: Path):
    for seed in (0, 1):
        write_run(tmp_path / str(seed), [0.4], seed=seed, task__classes={"val": [f"c{seed}"]})
    (table,) = validation_tables(find_runs([tmp_path]))
    assert "different classes" in table.notes[-1]


def test_a_long_sentence_is_cut():
    assert shortened("a" * 160) == "a" * 160
    assert shortened("a" * 161) == "a" * 159 + "…"


def test_a_span_names_the_ends_where_they_differ():
    assert [span([]), span([5, 5]), span([7, 5])] == ["", "5", "5–7"]
