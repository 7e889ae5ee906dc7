"""What is refused before a prediction works, and where its files go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small import composed
from small_runs import SHORT, predict

from metarun.commands.export import export
from metarun.commands.predict import Places, places_of
from metarun.commands.train import train
from metarun.errors import UserError


def test_the_files_lie_in_the_run_folder_or_where_out_says(tmp_path: Path) -> None:
    assert places_of(None, tmp_path) == Places(*(tmp_path / name for name in ("predictions.csv", "predictions.html", "report.json")))
    assert places_of(f"{tmp_path}/a.b.csv", tmp_path / "run")[:2] == (tmp_path / "a.b.csv", tmp_path / "a.b.html")


@pytest.mark.parametrize("taken", ["mine.csv", "mine.html", "link"])
def test_a_file_that_is_there_is_never_overwritten(tmp_path: Path, taken: str) -> None:
    if taken == "link":
        (tmp_path / "mine.csv").symlink_to(tmp_path / "nowhere")
    else:
        (tmp_path / taken).write_text("mine")
    with pytest.raises(UserError, match=r"mine.* is there already; choose another name with out=FILE\.csv"):
        places_of(str(tmp_path / "mine.csv"), tmp_path)


@pytest.mark.parametrize(("out", "said"), [("mine.txt", "must end in"), ("nowhere/mine.csv", "there is no folder nowhere")])
def test_another_kind_of_name_is_refused(tmp_path: Path, out: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        places_of(out, tmp_path)


def test_an_out_file_that_exists_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        predict("no/such/run", tmp_path / "no", tmp_path / "no", tmp_path / "p", out=str(tmp_path / "mine.csv"))


def test_a_run_on_neither_pictures_nor_a_table_is_refused(sinusoid_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"labels images, predicts tables and recommends items, and the run .* was trained on other inputs"):
        predict(sinusoid_run, tmp_path, tmp_path, tmp_path / "p")


def test_a_stream_of_functions_is_refused_as_other_functions_are_and_its_backbone_is_exported(tmp_path: Path) -> None:
    """OML learns a head for all training classes, and functions have no classes to count."""
    sizes = ("task.functions=2", "task.steps=2", "task.step_points=4", "task.held_out=5", "task.train_functions=4", "backbone.widths=[4]")
    train(composed(*SHORT, "algo=oml", "task=sine_stream", "backbone=mlp", *sizes), tmp_path / "run")
    with pytest.raises(UserError, match=r"predict labels images, .* and the run .* was trained on other inputs"):
        predict(tmp_path / "run", tmp_path, tmp_path, tmp_path / "p")
    pytest.importorskip("safetensors")
    assert export(tmp_path / "run", tmp_path / "out")["input_shape"] == [3]


@pytest.mark.parametrize(
    ("options", "said"), [({"top": 3}, "top= is for a run on task=ratings"), ({"user": {"age": 3}}, "user= is for a run")]
)
def test_keys_of_recommendation_are_refused_for_other_runs(sinusoid_run: Path, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        predict(sinusoid_run, tmp_path, tmp_path, tmp_path / "p", **options)


def test_a_run_that_labels_needs_a_query(sinusoid_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"query= is missing"):
        predict(sinusoid_run, tmp_path, None, tmp_path / "p")
