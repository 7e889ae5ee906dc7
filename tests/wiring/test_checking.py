"""The walk over every key of every group with wrong values: each is refused with a sentence that names the key, or stands in a table.

The keys are found by composing every option of every group, so a new option joins by being there. Nothing is built.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from option_rows import config_of, options, rows
from small import composed, words_of

from metarun.commands.keys import check_train
from metarun.errors import UserError
from metarun.wiring.checking import TRAINED, check_values

ACCEPTED = yaml.safe_load((Path(__file__).parents[1] / "data/accepted_values.yaml").read_text(encoding="utf-8"))

WRONG: dict[str, Any] = {
    "null": None,
    "true": True,
    "-1": -1,
    "-0.5": -0.5,
    "0": 0,
    "1.5": 1.5,
    "3000000000": 3_000_000_000,
    "1e20": 1e20,
    "10**20": 10**20,
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "1e-50": 1e-50,
    "''": "",
    "abc": "abc",
    "[]": [],
    "[abc]": ["abc"],
    "[-1]": [-1],
    "[nan, nan]": [math.nan, math.nan],
    "[null]": [None],
    "{}": {},
    "{a: 1}": {"a": 1},
}

OPTIONS = ("momentum", "weight_decay", "betas", "eps", "amsgrad", "nesterov", "dampening", "maximize", "foreach", "fused")
"""Keys of `optimizer.options` that a user may add."""


@cache
def configs() -> list[tuple[str, dict[str, Any]]]:
    """Return (group, a config with one of its options) for each option of each group; as few configs as possible are composed."""
    algorithms = [composed(*words_of(option)) for option in options("algo")]
    updates = [composed("algo=gbml", f"algo/update={option}") for option in options("algo/update")]
    others = [(group, config) for row in rows() for config in [config_of(row)] for group in row]
    return [("", algorithms[0]), *(("algo", config) for config in (*algorithms, *updates)), *others]


def leaves(node: Any, name: str) -> Iterator[str]:
    """Yield the dotted keys below a node, and the keys of the mappings on the way."""
    for key, value in node.items():
        if key != "_target_":
            yield f"{name}{key}"
            if isinstance(value, Mapping):
                yield from leaves(value, f"{name}{key}.")


def put(node: Mapping[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    first, _, rest = dotted.partition(".")
    return {**node, first: put(node[first], rest, value) if rest else value}


def keys_to_walk(group: str, config: Mapping[str, Any]) -> list[str]:
    if not group:
        return [key for key in config if not isinstance(config[key], Mapping)]
    inside = ("task.images.", "task.source.")  # of task=folder and task=glyphs, walked there
    found = [key for key in leaves(config[group], f"{group}.") if not key.startswith(inside)]
    if group == "optimizer":
        found += [f"optimizer.options.{key}" for key in OPTIONS if f"optimizer.options.{key}" not in found]
    return found


def refusal(group: str, config: Mapping[str, Any]) -> str | None:
    """Return the sentence that a training says about a config; None where it accepts the config. group: the one to check, "" for none."""
    try:
        if not group:
            check_train(config)
        check_values({group: config[group]} if group else config, [group] if group else [])
    except UserError as error:
        return str(error)
    return None


class Answer(NamedTuple):
    """place: the key, such as "algo.decay of Mann". sentence: the refusal of a value; None where the value is accepted."""

    place: str
    key: str
    value: str
    sentence: str | None


@cache
def walked() -> list[Answer]:
    """Return an answer for every key and wrong value; an argument of one function is walked once."""
    seen, answers = set(), []
    for group, config in configs():
        for key in keys_to_walk(group, config):
            holder = config
            for part in key.split(".")[:-1]:
                holder = holder[part]
            owner = str(holder.get("_target_", "")).rpartition(".")[2]
            if group == "optimizer":
                owner = config["optimizer"]["name"]
            place = f"{key} of {owner}" if owner else key
            if place not in seen:
                seen.add(place)
                answers += [Answer(place, key, text, refusal(group, put(config, key, value))) for text, value in WRONG.items()]
    return answers


def accepted() -> set[tuple[str, str]]:
    """Return (place, value) of the table; a pattern stands for all places that match it."""
    places = sorted({answer.place for answer in walked()})
    rows = [(pattern, str(value)) for row in ACCEPTED for pattern in row["keys"] for value in row["values"]]
    return {(place, value) for pattern, value in rows for place in places if fnmatchcase(place, pattern)}


def test_each_of_thousands_of_wrong_values_is_refused_or_stands_in_the_table_of_what_a_person_has_accepted() -> None:
    taken = {(answer.place, answer.value) for answer in walked() if answer.sentence is None}
    listed = accepted()
    assert not taken - listed, "accepted, and not in tests/data/accepted_values.yaml"
    assert not listed - taken, "in tests/data/accepted_values.yaml, and refused"
    assert len(walked()) - len(taken) >= 2000


@pytest.mark.parametrize("value", [5, "x", True, {"project": "x"}, ["a"]])
def test_a_value_in_the_place_of_a_logger_is_refused(value: Any) -> None:
    config = composed("logger=jsonl")
    with pytest.raises(UserError, match=r"logger\.wandb=.* is no logger; choose loggers with logger=NAME or logger=\[NAME,NAME\]"):
        check_values({**config, "logger": {**config["logger"], "wandb": value}}, ["logger"])
    check_values({**config, "logger": {**config["logger"], "wandb": None}}, ["logger"])


def test_each_refusal_names_the_key_on_one_line() -> None:
    for _, key, value, sentence in walked():
        if sentence is not None:
            name = "optimizer.options" if key.startswith("optimizer.options") else "optim" if key == "optimizer.name" else key
            assert name in sentence, (key, value, sentence)
            assert "\n" not in sentence, (key, value, sentence)


def test_every_row_of_the_table_has_a_reason_and_every_pattern_a_key() -> None:
    places = {answer.place for answer in walked()}
    assert all(len(row["why"]) > 10 for row in ACCEPTED)
    unused = [pattern for row in ACCEPTED for pattern in row["keys"] if not any(fnmatchcase(place, pattern) for place in places)]
    assert not unused


@pytest.mark.parametrize("betas", [[0.9], [0.9, 0.99, 0.9]])
def test_an_optimizer_has_two_betas(betas: list[float]) -> None:
    config = composed()
    config["optimizer"]["options"] = {"betas": betas}
    with pytest.raises(UserError, match=r"^optimizer\.options\.betas=.* should be a list of 2\.$"):
        check_values(config, TRAINED)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["task=stream", "task/source=folder", "task.source.root=x", "task.held_out=0"], r"^task\.held_out=0 should be"),
        (["task=stream", "task/source=folder", "task.source.root=x", "task.per_class=0"], r"^task\.per_class=0 should be"),
        (["task=stream", "task.trajectories=0"], r"^task\.trajectories=0 should be"),
        (["task=stream", "eval_episodes=0"], r"^eval_episodes=0 should be"),
        (["task=sinusoid", "backbone=mlp", "algo.recipe.steps=-1"], r"^algo\.recipe\.steps=-1 should be"),
    ],
)
def test_a_refused_value_has_the_key_that_the_user_set_and_no_key_that_follows_it(words: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        check_values(composed(*words))
