"""What a checkpoint's config may name, and where."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metarun.errors import UserError
from metarun.wiring.instantiate import locate
from metarun.wiring.places import ROOTS, check_targets, config_folder, groups

TRACKER = {"_target_": "metarun.records.tracking.Tracker", "folder": "victim"}


def refusal(config: dict[str, Any], trust: list[str] | None = None) -> str:
    with pytest.raises(UserError) as caught:
        check_targets(config, trust or [])
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A user's package that imports os, and marks that it was imported."""
    source = textwrap.dedent("""
        import functools, os
        from os import system as alias
        import mine_module_loaded
        def build(size): return size
        class Kind:
            def __init__(self, size): self.size = size
            @classmethod
            def of(cls, size): return cls(size)
        bound = functools.partial(os.system)
    """)
    (tmp_path / "mine_package").mkdir()
    (tmp_path / "mine_package" / "__init__.py").write_text(source)
    (tmp_path / "mine_package" / "sub.py").write_text("from mine_package import build as other\nclass Deep:\n    pass\n")
    (tmp_path / "mine_module_loaded.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield "mine_package"
    for name in ("mine_package", "mine_package.sub", "mine_module_loaded"):
        sys.modules.pop(name, None)


def was_imported() -> bool:
    return "mine_module_loaded" in sys.modules


@pytest.mark.parametrize("target", ["build", "Kind", "Kind.of", "sub.Deep", "sub.other"])
@pytest.mark.parametrize("group", ROOTS)
def test_a_trusted_package_may_name_what_it_defines(mine: str, target: str, group: str) -> None:
    check_targets({group: {"_target_": f"{mine}.{target}"}}, [mine])


@pytest.mark.parametrize("target", ["os.system", "os.mkdir", "alias", "functools.partial", "bound", "Kind.mro", "build.__globals__", "os"])
def test_a_trusted_package_may_not_lend_what_it_imported(mine: str, target: str) -> None:
    words = f"'{mine}.{target}', which is not defined in the trusted package"
    assert words in refusal({"algo": {"_target_": f"{mine}.{target}"}}, [mine])


def test_a_package_that_is_not_trusted_is_refused_with_the_remedy_and_not_imported(mine: str) -> None:
    text = refusal({"algo": {"_target_": f"{mine}.build"}}, ["other"])
    assert f"'{mine}.build'" in text
    assert f"trust=[{mine}]" in text
    assert not was_imported()


def test_a_name_that_only_begins_like_a_trusted_one_is_refused(mine: str) -> None:
    assert "trust=" in refusal({"task": {"_target_": f"{mine}.build"}}, ["mine"])
    assert not was_imported()


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "metarun.records.checkpoint.os.mkdir",
        "metarun.records.checkpoint.save",
        "metarun.engine.optimizer.OuterOptimizer.update",
        "metarun.engine.optimizer.OuterOptimizer ",
        "metarun.cli.folders.NumberedFolder",
        "${oc.env:HOME}",
        "",
        None,
        3,
        ["os.system"],
        {"_target_": "os.system"},
    ],
)
@pytest.mark.parametrize("trust", [[], ["metarun"]])
def test_code_that_is_no_building_block_is_refused_wherever_it_stands(target: Any, trust: list[str]) -> None:
    node = {"_target_": target}
    for config in ({"algo": node}, {"note": [1, ({"b": [node]},)]}, {"task": {"_target_": "metarun.tasks.glyphs.glyphs", "root": [node]}}):
        assert "nothing was run" in refusal(config, trust)


def shipped(group: str) -> str:
    return min(groups()[group].targets)


@pytest.mark.parametrize("group", ROOTS)
@pytest.mark.parametrize("other", ROOTS)
def test_a_part_of_metarun_stands_only_in_its_own_group(group: str, other: str) -> None:
    config = {group: {"_target_": shipped(other)}}
    if group == other:
        check_targets(config)
    else:
        assert f"{shipped(other)}' in {group}, which is no place for it" in refusal(config)


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({"algo": {"_target_": "metarun.algorithms.maml.Maml", "adapts": TRACKER}}, "algo.adapts"),
        ({"algo": {"_target_": "metarun.algorithms.maml.Maml", "adapts": ["*", TRACKER]}}, "algo.adapts.1"),
        ({"algo": {"_target_": "metarun.algorithms.gbml.Gbml", "update": TRACKER}}, "algo.update"),
        ({"task": {"_target_": "metarun.tasks.mixture.mixture", "sources": {"a": TRACKER}}}, "task.sources.a"),
        ({"task": {"_target_": "metarun.tasks.folder.folder", "classes": {"train": [TRACKER]}}}, "task.classes.train.0"),
        ({"optimizer": {"_target_": "metarun.engine.optimizer.OuterOptimizer", "options": {"betas": TRACKER}}}, "optimizer.options.betas"),
        ({"backbone": {"norm": {"deep": TRACKER}}}, "backbone.norm.deep"),
        ({"device": {"name": TRACKER}}, "device.name"),
        ({"hydra": {"callbacks": TRACKER}}, "hydra.callbacks"),
        ({"algo": [TRACKER]}, "algo.0"),
    ],
)
def test_a_tracker_is_refused_in_every_place_but_its_own(config: dict[str, Any], place: str) -> None:
    for trust in ([], ["small"]):
        assert f"'metarun.records.tracking.Tracker' in {place}, which is no place for it" in refusal(config, trust)


def test_sources_of_a_mixture_and_rules_of_an_update_have_places_of_their_own(mine: str) -> None:
    line = {"_target_": "metarun.tasks.curves.line"}
    inner = {"_target_": "metarun.tasks.mixture.mixture", "sources": {"b": line, "c": {"_target_": f"{mine}.build"}}}
    rule = {"_target_": "metarun.algorithms.updates.sgd.Sgd"}
    gbml = {"_target_": "metarun.algorithms.gbml.Gbml", "update": rule}
    check_targets({"task": {"_target_": "metarun.tasks.mixture.mixture", "sources": {"a": line, "more": inner}}, "algo": gbml}, [mine])
    assert "algo.rule, which is no place" in refusal({"algo": {**gbml, "rule": rule}})
    assert "task.source, which is no place" in refusal({"task": {"_target_": "metarun.tasks.mixture.mixture", "source": line}})


def test_a_trusted_part_may_hold_parts_of_its_own_package_and_of_its_group_but_no_others(mine: str) -> None:
    own = {"_target_": f"{mine}.build"}
    check_targets({"task": {**own, "size": [{"deep": own}, {"_target_": "metarun.tasks.glyphs.glyphs"}]}}, [mine])
    assert "task.size, which is no place" in refusal({"task": {**own, "size": TRACKER}}, [mine])
    assert "where no code may stand" in refusal({"algo": {"_target_": "metarun.algorithms.maml.Maml", "adapts": own}}, [mine])
    assert "where no code may stand" in refusal({"note": own}, [mine])


@pytest.mark.parametrize("key", ["folder", "resume_step", "\x1b[2J"])
def test_a_logger_may_not_say_where_it_writes(key: str) -> None:
    node = {"_target_": "metarun.records.tracking.Tracker", "tensorboard": False}
    check_targets({"logger": node})
    text = refusal({"logger": {**node, key: "victim"}})
    assert "which a checkpoint may not set; nothing was run" in text
    assert "\x1b" not in text


def test_a_checkpoint_may_name_the_shipped_loggers_and_a_trusted_one_below_the_tracker_alone(mine: str) -> None:
    tracker, board = {"_target_": "metarun.records.tracking.Tracker"}, {"_target_": "metarun.records.loggers.tensorboard.TensorBoard"}
    check_targets({"logger": {**tracker, "tensorboard": board, "mine": {"_target_": f"{mine}.Kind"}}}, [mine])
    assert f"trust=[{mine}]" in refusal({"logger": {**tracker, "mine": {"_target_": f"{mine}.Kind"}}})
    assert "no building block of metarun" in refusal({"logger": {**tracker, "tensorboard": {"_target_": "os.system"}}})
    assert "algo, which is no place for it" in refusal({"algo": board})
    assert "logger.a, which is no place for it" in refusal({"logger": {**tracker, "a": TRACKER}})
    assert "logger.a.b, which is no place for it" in refusal({"logger": {**tracker, "a": {**board, "b": board}}})


def test_a_long_target_is_cut_and_its_control_characters_are_shown() -> None:
    text = refusal({"algo": {"_target_": "\x1b[31m\u202e" + "x" * 10_000}})
    assert len(text) < 300
    assert "\\x1b[31m\\u202exxx" in text


def test_every_shipped_target_is_accepted_in_its_group_and_exists() -> None:
    assert "metarun.engine.optimizer.OuterOptimizer" in groups()["optimizer"].targets
    inside = {("images",): "task", ("backbone",): "backbone", ("source",): "task/source"}
    assert groups()["task"].places == {("sources", "*"): "task", **inside}
    assert groups()["algo"].places == {("update",): "algo/update"}
    for name, group in groups().items():
        for target in group.targets:
            assert callable(locate(target)), target
            if name in ROOTS:
                check_targets({name: {"_target_": target}})


def test_the_shipped_configs_are_found_without_an_installation() -> None:
    assert config_folder().joinpath("optimizer", "adam.yaml").is_file()
    assert not any(os.sep in target for group in groups().values() for target in group.targets)
