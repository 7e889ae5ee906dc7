"""The files of a run folder as data, whatever is in them."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from metarun.commands.comparing import reading


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"null", b"[" * 100_000])
def test_a_file_that_is_no_mapping_is_an_empty_one(tmp_path: Path, content: bytes):
    (tmp_path / "report.json").write_bytes(content)
    assert reading.json_of(tmp_path / "report.json") == {}
    assert reading.json_of(tmp_path / "missing.json") == {}


def test_a_pipe_and_a_link_are_not_read(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "secret").write_text('{"a": 1}')
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    assert reading.json_of(tmp_path / "pipe") == reading.json_of(tmp_path / "link") == {}


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path: Path):
    lines = ['{"step": 1, "val/accuracy": 0.5}', "[]", '{"step": "2"}', '{"step": true}', '{"step": 3, "val/acc']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert reading.lines_of(tmp_path / "metrics.jsonl") == [{"step": 1, "val/accuracy": 0.5}]


def test_yaml_is_plain_and_interpolations_stay_text(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("a: ${oc.env:HOME}\n")
    assert reading.yaml_of(tmp_path / "config.yaml") == {"a": "${oc.env:HOME}"}
    (tmp_path / "config.yaml").write_text("a: !!python/object/apply:os.getcwd []\n")
    assert reading.yaml_of(tmp_path / "config.yaml") is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        ("True", "true"),
        (0.001, "0.001"),
        ("1e-3", "0.001"),
        (5, "5"),
        ("5.0", "5"),
        ("none", "none"),
        ("nan", "nan"),
        (float("inf"), "inf"),
        ([1, "a"], "[1,a]"),
        ({"a": 1}, "{a:1}"),
    ],
)
def test_a_value_is_written_as_one_types_it(value: Any, text: str):
    assert reading.text_of(value) == text


def test_a_number_is_finite_and_no_truth_value():
    assert [reading.number(value) for value in (1, 0.5, True, None, "1", float("nan"))] == [1.0, 0.5, None, None, None, None]


def test_leaves_and_look_up_agree():
    config = {"task": {"ways": 5, "images": {"size": 28}}, "seed": 0}
    assert reading.leaves(config) == {"task.ways": 5, "task.images.size": 28, "seed": 0}
    assert {key: reading.look_up(config, key) for key in reading.leaves(config)} == reading.leaves(config)
    assert reading.look_up(config, "seed.of.nothing") is None


def test_a_file_above_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "report.json").write_text(json.dumps({"a": "b" * 100}))
    monkeypatch.setattr(reading, "LARGEST", 50)
    assert reading.json_of(tmp_path / "report.json") == {}


@pytest.mark.parametrize("value", [None, True, "1", math.nan, math.inf, [1], 10**400, -1.7e308])
def test_only_a_finite_number_is_one(value: object):
    assert reading.number(value) is None
