"""The config of a checkpoint: its form, the code that it names, and the files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from small import composed

from metarun.errors import UserError
from metarun.wiring.stored import accepted, check_form, packages


def refusal(config: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        accepted(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        ("task=mixture", "backbone=mlp"),
        ("algo=metasgd", "task=folder"),
        ("task=table", "task.path=x", "task.task_column=a", "task.target=b"),
    ],
)
def test_the_config_of_a_run_passes_as_it_is(words: tuple[str, ...]) -> None:
    config = composed(*words)
    assert accepted(config) == config


@pytest.mark.parametrize(("switch", "words"), [(True, "logger=tensorboard"), (False, "logger=jsonl")])
def test_the_switch_of_an_earlier_version_becomes_todays_logger(switch: bool, words: str) -> None:
    earlier = {"_target_": "metarun.records.tracking.Tracker", "tensorboard": switch}
    today = {"tensorboard": None, **composed(words)["logger"]}
    assert accepted({**composed(), "logger": earlier})["logger"] == today


@pytest.mark.parametrize("key", ["task", "algo", "backbone", "device", "optimizer", "logger", "seed", "steps"])
@pytest.mark.parametrize("value", [None, "text", [1], True, 2.5])
def test_a_part_of_another_type_is_a_sentence(key: str, value: Any) -> None:
    config = composed()
    assert f"as {key}, which must be" in refusal({**config, key: value})
    del config[key]
    assert f"has no '{key}'" in refusal(config)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"options": ["algo"]}, "as options"),
        ({"keep": "many"}, "as keep"),
        ({"init_from": {"_target_": "os.system"}}, "as init_from"),
        ({"input_shape": [1, -28, 28]}, "as input_shape"),
        ({"input_shape": [3, 10**6, 10**6]}, "as input_shape"),
        ({"input_shape": "28"}, "as input_shape"),
        ({"hydra": {"run": {"dir": "/"}}}, "sets hydra, which no run stores"),
        ({"save": "scores.csv"}, "sets save, which no run stores"),
        ({"checkpoint": "x"}, "sets checkpoint, which no run stores"),
        ({"resume": "x"}, "sets resume, which no run stores"),
        ({"algo": {1: 2}}, "has the key 1 in algo"),
        ({"optimizer": {"options": [{None: 2}]}}, "has the key None in optimizer.options"),
    ],
)
def test_what_no_run_stores_is_a_sentence(changes: dict[str, Any], words: str) -> None:
    assert words in refusal({**composed(), **changes})


def test_a_long_value_is_cut() -> None:
    assert len(refusal({**composed(), "task": "x" * 10_000})) < 300


def test_a_pipe_or_a_device_is_no_data(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", "/dev/zero"):
        config = composed("task=folder")
        config["task"]["split_file"] = str(place)
        assert "neither a file nor a folder; nothing was read" in refusal(config)
    inner = composed("task=mixture", "backbone=mlp")
    inner["task"]["sources"]["line"]["root"] = str(tmp_path / "pipe")
    assert "neither a file nor a folder" in refusal(inner)


def test_a_checkpoint_downloads_nothing() -> None:
    config = composed("task=omniglot", "task.download=true")
    assert accepted(config)["task"]["download"] is False
    assert config["task"]["download"] is True
    nested = composed("task=mixture", "backbone=mlp")
    nested["task"]["sources"]["omniglot"] = config["task"]
    assert accepted(nested)["task"]["sources"]["omniglot"]["download"] is False


@pytest.mark.parametrize(("typed", "names"), [(None, []), ([], []), (["a", "b"], ["a", "b"]), ("a", ["a"])])
def test_trust_is_a_list_of_packages(typed: Any, names: list[str]) -> None:
    assert packages(typed) == names


@pytest.mark.parametrize("typed", [5, [5], {"a": 1}, ["a.b"], [""], True])
def test_trust_in_something_else_is_a_sentence(typed: Any) -> None:
    with pytest.raises(UserError, match="must be a list of packages"):
        packages(typed)


def test_text_that_begins_a_trusted_name_trusts_nothing_else() -> None:
    """`in` on text would find "my" in "mypack"."""
    config = {**composed(), "backbone": {"_target_": "my.Net"}}
    with pytest.raises(UserError, match=r"add trust=\[my\]"):
        accepted(config, "mypack")
    check_form(config)


def test_a_list_of_a_million_layers_is_refused_and_a_list_of_many_classes_is_not() -> None:
    config = composed("task=folder")
    config["task"]["classes"] = {"train": [f"c{number}" for number in range(5000)], "val": [], "test": []}
    accepted(config)
    config["backbone"]["widths"] = [1] * 5000
    assert "a list of 5,000 entries in backbone.widths" in refusal(config)
