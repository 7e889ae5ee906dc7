"""The files of an option, read without composing a config."""

from __future__ import annotations

from pathlib import Path

import pytest

from metarun.wiring.option_files import content_of, defaults_of, files_of, keys_of, leaves, options, shipped


def test_options_are_the_files_of_a_group_without_parts_of_others(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task/mine.yaml").write_text("a: 1\n")
    names = options("task", [tmp_path])
    assert {"mine", "glyphs"} <= set(names)
    assert "few_shot_" not in names
    assert options("nothing") == []


def test_an_option_has_the_keys_of_the_files_that_it_inherits() -> None:
    anil, stream = keys_of("algo/anil"), keys_of("task/stream")
    assert anil["adapts"] == ["head.*"]
    assert anil["recipe.norm"] == "batch"
    assert {"classes", "source.samples", "source.seed"} <= set(stream)
    assert keys_of("task/features")["images.image_size"] == 84
    assert "lr" not in keys_of("algo/reptile"), "its optimizer stands in another group"


def test_a_circle_of_files_ends(tmp_path: Path) -> None:
    (tmp_path / "algo").mkdir()
    (tmp_path / "algo/a.yaml").write_text("defaults: [b, _self_]\nx: 1\n")
    (tmp_path / "algo/b.yaml").write_text("defaults: [a, _self_]\ny: 2\n")
    assert [text.splitlines()[1] for _, text in files_of("algo/a", [tmp_path])] == ["y: 2", "x: 1"]


@pytest.mark.parametrize("text", ["- 1\n", "a: [unclosed\n", "", "defaults: 3\n"])
def test_a_file_that_is_no_config_has_no_keys(text: str) -> None:
    assert (content_of(text), defaults_of(text)) == ({}, [])


def test_leaves_stop_at_keys_that_are_no_names() -> None:
    node = {"a": {"b": 1, "c": {}}, "reproduce": {"x": 1}, "d": {"optimizer.lr": "no name"}}
    assert leaves(node) == {"a.b": 1, "a.c": {}, "reproduce": {"x": 1}, "d": {"optimizer.lr": "no name"}}


def test_the_shipped_files_are_found() -> None:
    assert shipped().joinpath("train.yaml").is_file()
