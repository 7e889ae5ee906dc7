"""Every key has an explanation, and a composed key has the explanation and the value that take effect."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from metarun.cli.help.comments import comments_of
from metarun.cli.help.explained import FILES, Part, composed, explanations_of, references, sections
from metarun.errors import UserError
from metarun.wiring.option_files import content_of, files_of, leaves, options, shipped

GROUPS = ("algo", "algo/update", "task", "task/source", "backbone", "device", "optimizer", "logger")
OPTIONS = [f"{group}/{option}" for group in GROUPS for option in options(group)]


def keys_and_comments(name: str) -> tuple[set[str], dict[str, str]]:
    keys: set[str] = set()
    comments: dict[str, str] = {}
    for prefix, text in files_of(name):
        keys |= set(leaves(content_of(text), prefix))
        comments |= {prefix + key: comment for key, comment in comments_of(text).items()}
    return {key for key in keys if key.rpartition(".")[2] not in FILES and not key.startswith("hydra")}, comments


@pytest.mark.parametrize("name", ["train", "eval", "predict", *OPTIONS])
def test_every_key_has_an_explanation(name: str) -> None:
    """The entries of `algo.recipe` are explained by the keys that refer to them; see the test below."""
    keys, comments = keys_and_comments(name)
    unexplained = {key for key in keys if len(comments.get(key, "").split()) < 3 and "recipe." not in key}
    assert not unexplained, f"write a comment behind each of these keys: {unexplained}"


def explained_keys() -> Iterator[str]:
    yield from keys_and_comments("train")[1]
    for name in OPTIONS:
        group, _, _ = name.rpartition("/")
        keys, comments = keys_and_comments(name)
        yield from (f"{group.replace('/', '.')}.{key}" for key in keys if key in comments or key.startswith("recipe."))


def test_every_key_of_every_experiment_has_an_explanation() -> None:
    explained = set(explained_keys())
    for file in sorted(shipped().joinpath("experiment").iterdir(), key=str):
        if file.name.endswith(".yaml"):
            text = file.read_text(encoding="utf-8")
            known = explained | set(comments_of(text))
            keys = {re.sub(r"^task\.sources\.\w+\.", "task.", key) for key in leaves(content_of(text)) if key not in comments_of(text)}
            assert not keys - known, f"{file.name}: {keys - known} has no explanation"


def test_each_entry_of_a_recipe_is_the_default_of_some_key() -> None:
    texts = [text for name in ("train", *OPTIONS) for _, text in files_of(name)]
    read = {entry for text in texts for entry in re.findall(r"\$\{oc\.select:algo\.recipe\.(\w+)", text)}
    entries = {key for name in OPTIONS if name.startswith("algo/") for key in keys_and_comments(name)[0] if key.startswith("recipe.")}
    assert {entry.removeprefix("recipe.") for entry in entries} <= read


def words(found: dict, package: str) -> dict[str, tuple[object, str, str]]:
    return {key.name: (key.value, key.origin, key.words) for key in found[package].keys}


def test_values_are_resolved_and_say_where_they_come_from() -> None:
    found = sections(composed("train", ["experiment=omniglot_5w1s_maml", "task=sinusoid", "backbone=mlp", "algo.inner_lr=3", "seed=7"]))
    algo, task, own = words(found, "algo"), words(found, "task"), words(found, "")
    assert algo["algo.inner_lr"][:2] == (3, ""), "typed, so the experiment has no say"
    assert algo["algo.test_inner_steps"][:2] == (3, "set by the experiment")
    assert "null: as many as in training" in algo["algo.test_inner_steps"][2]
    assert algo["algo.recipe.norm"] == ("batch", "", "default of backbone.norm")
    assert algo["algo.recipe.steps"][2] == "a default that no key of this choice reads", "the experiment gives the steps"
    assert task["task.seed"][:2] == (7, "from seed")
    assert task["task.train_queries"][1] == "set by the experiment"
    assert own["steps"][:2] == (7200, "set by the experiment")
    assert found["task"].title == "task=sinusoid"
    assert found["task"].target == "metarun.tasks.sinusoid.sinusoid"


def test_nested_groups_have_sections_of_their_own() -> None:
    found = sections(composed("train", ["algo=gbml", "algo/update=momentum", "task=stream", "task/source=folder", "backbone=conv4"]))
    assert [section.title for section in found.values() if "/" in section.title] == ["algo/update=momentum", "task/source=folder"]
    update, source, stream = words(found, "algo.update"), words(found, "task.source"), words(found, "task")
    assert "share of the previous update" in update["algo.update.momentum"][2]
    assert source["task.source.shots"][:2] == (15, "from task.per_class")
    assert not any(name.startswith("task.source.") for name in stream)
    assert all(key.words for section in found.values() for key in section.keys)


def test_several_loggers_share_a_section() -> None:
    section = sections(composed("train", ["logger=[jsonl,tensorboard]"]))["logger"]
    assert section.title == "logger=[jsonl,tensorboard]"
    assert all(key.words for key in section.keys)


def test_a_users_own_option_is_explained_by_its_own_comments_and_those_that_it_inherits(tmp_path: Path) -> None:
    (tmp_path / "algo").mkdir()
    (tmp_path / "algo/mine.yaml").write_text("# My own MAML.\ndefaults: [maml, _self_]\ninner_lr: 0.2\nnew: ???  # a new key of mine\n")
    section = sections(composed("train", ["--config-dir", str(tmp_path), "algo=mine"]))["algo"]
    found = {key.name: key for key in section.keys}
    assert (section.title, section.words) == ("algo=mine", "My own MAML.")
    assert found["algo.inner_lr"].value == 0.2
    assert found["algo.inner_lr"].words.startswith("learning rate of an inner step")
    assert found["algo.new"][1:] == ("???", "must be given", "a new key of mine")


def test_an_experiments_comment_stands_beside_the_explanation_of_the_key() -> None:
    parts = [
        Part("algo/maml", "algo", "a: 1  # the rate\n"),
        Part("train", "", "b: 1  # the steps\n"),
        Part("experiment/x", "", "algo:\n  a: 2  # in stars\nb: 3\nc: 4  # new\n"),
    ]
    assert explanations_of(parts) == {"algo.a": "the rate (experiment=x: in stars)", "b": "the steps", "c": "new"}


def test_a_wrong_word_is_refused_as_the_command_refuses_it() -> None:
    with pytest.raises(UserError, match="algo has no option 'mamll'"):
        composed("train", ["algo=mamll"])
    with pytest.raises(UserError, match="--help explains one choice at a time; give algo=maml or algo=anil"):
        composed("train", ["algo=maml,anil"])
    with pytest.raises(UserError, match="there is no folder 'nowhere'"):
        composed("train", ["--config-dir", "nowhere"])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("${seed}", ["seed"]),
        ("${oc.select:algo.recipe.lr,1.0e-3}", ["algo.recipe.lr"]),
        ("${oc.select:a.b,${oc.select:a.c,5}}", ["a.b", "a.c"]),
        ("${..ways}", ["..ways"]),
        ("${oc.env:METARUN_DATA,data}/x", []),
        ("plain", []),
        (3, []),
    ],
)
def test_references_are_the_keys_that_a_value_names(value: object, expected: list[str]) -> None:
    assert references(value) == expected
