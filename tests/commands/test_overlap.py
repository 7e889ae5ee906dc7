"""Training classes among the test classes, and the classes that an interval covers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import Lines, few_shot

from metarun.commands.overlap import (
    check_choice,
    check_evaluation,
    check_start,
    described,
    overlap_with,
    overlaps_of,
    population_of,
    training_origins,
)
from metarun.errors import UserError
from metarun.records import checkpoint
from metarun.records.checkpoint import Checkpoint
from metarun.tasks.mixture import Mixture
from metarun.tasks.pool import ClassPool
from metarun.tasks.sampling import FewShot


def pool(names: list[str], origins: list[str] | None = None) -> ClassPool:
    return ClassPool(torch.zeros(4 * len(names), 1, 2, 2, dtype=torch.uint8), [4] * len(names), names, origins=origins)


def source(data: str = "animals", ways: int = 2) -> FewShot:
    """Training classes ant, bee and bug; validation cat and dog; test eel, elk and emu."""
    pools = {"train": pool(["ant", "bee", "bug"]), "val": pool(["cat", "dog"]), "test": pool(["eel", "elk", "emu"])}
    return FewShot(pools, ways=ways, shots=1, queries=1, data=data)


def test_a_run_remembers_its_training_classes_and_those_of_the_run_that_it_started_from() -> None:
    assert training_origins(source(), ["animals/yak", "animals/ant"]) == ["animals/ant", "animals/bee", "animals/bug", "animals/yak"]
    assert training_origins(Lines()) == []


def test_test_classes_that_were_trained_on_are_refused_with_the_numbers() -> None:
    trained = ["animals/elk", "animals/ant", "animals/emu"]
    with pytest.raises(UserError, match=r"2 of the 3 test classes are training classes of the checkpoint.*overlap=allow"):
        check_evaluation(source(), "test", trained, "refuse")
    allowed = check_evaluation(source(), "test", trained, "allow")
    assert allowed == {"shared": 2, "of": 3, "split": "test", "kind": "classes"}
    assert check_evaluation(source(), "val", trained, "refuse") is None
    assert check_evaluation(source(), "train", trained, "refuse") is None, "the training split claims nothing about new classes"


def test_classes_of_another_data_set_do_not_overlap() -> None:
    assert check_evaluation(source("toys"), "test", ["animals/elk"], "refuse") is None
    assert check_evaluation(Lines(), "test", ["animals/elk"], "refuse") is None


def test_a_turned_copy_counts_as_its_original() -> None:
    turned = pool(["a/rot000", "a/rot090", "b/rot090"], origins=["a", "a", "b"])
    rotated = replace(source("letters"), pools={**source().pools, "test": turned})
    assert overlap_with(rotated, "test", ["letters/a"]) == {"shared": 1, "of": 2, "split": "test", "kind": "classes"}
    assert rotated.population("test") == 3


def test_a_mixture_has_the_classes_of_all_its_sources() -> None:
    both = Mixture({"animals": source(), "toys": source("toys")})
    found = overlap_with(both, "test", ["toys/elk"])
    assert found == {"shared": 1, "of": 6, "split": "test", "kind": "classes", "by_family": {"toys": 1}}
    assert described(found) == "1 of the 6 test classes (toys 1)"
    assert both.population("test") == 6
    assert Mixture({"animals": source("animals")}).population("val") == 2
    assert Mixture({"lines": Lines()}).population("test") is None


def test_an_evaluation_of_a_mixture_is_refused_for_the_training_classes_of_one_family() -> None:
    both = Mixture({"animals": source(), "toys": source("toys")})
    with pytest.raises(UserError, match=r"1 of the 6 test classes \(toys 1\) are training classes of the checkpoint"):
        check_evaluation(both, "test", {"toys/elk"}, "refuse")
    assert check_evaluation(both, "test", {"toys/ant"}, "refuse") is None


def test_families_that_divide_the_same_data_in_two_ways_are_refused_before_a_training() -> None:
    """The classes that one family trains on are the test classes of the other one."""
    pools = source().pools
    turned = replace(source(), pools={**pools, "train": pools["test"], "test": pools["train"]})
    both = Mixture({"animals": source(), "turned": turned})
    with pytest.raises(UserError, match=r"classes of the source 'animals' are training classes of the source 'turned'; divide both"):
        check_start({"init_from": None}, both)
    assert check_start({"init_from": None, "overlap": "allow"}, both) == []
    assert check_start({"init_from": None}, Mixture({"animals": source(), "again": source()})) == []


def start_config(folder: Path, overlap: str, origins: list[str]) -> dict[str, Any]:
    checkpoint.save(folder / "run/checkpoints/best.pt", Checkpoint(1, {"w": torch.zeros(1)}, {}, origins=origins))
    return {"init_from": str(folder / "run"), "overlap": overlap}


def test_a_start_from_a_run_that_knows_test_or_validation_classes_is_refused(tmp_path: Path) -> None:
    config = start_config(tmp_path, "refuse", ["animals/cat", "animals/emu", "animals/eel"])
    with pytest.raises(UserError, match="was trained on 1 of the 2 val classes and 2 of the 3 test classes of this run"):
        check_start(config, source())
    origins = check_start({**config, "overlap": "allow"}, source())
    assert origins == ["animals/cat", "animals/emu", "animals/eel"]
    assert [each["shared"] for each in overlaps_of(source(), origins)] == [1, 2]


def test_a_start_from_a_run_of_the_same_split_is_fine(tmp_path: Path) -> None:
    assert check_start(start_config(tmp_path, "refuse", ["animals/ant"]), source()) == ["animals/ant"]
    assert check_start({"init_from": None}, source()) == []


def test_another_choice_is_a_sentence() -> None:
    assert check_choice("allow")
    assert not check_choice("refuse")
    with pytest.raises(UserError, match=r"overlap=alow is unknown.*Did you mean 'allow'"):
        check_choice("alow")


def test_the_interval_covers_new_classes_only_where_episodes_differ_in_them() -> None:
    """Episodes of two ways: from three test classes they differ, from two validation classes they do not."""
    animals = source()
    known = {split: population_of(animals, split, animals.episode(split, 0), 600) for split in ("val", "test")}
    assert known["test"] == {"count": 3, "kind": "test classes", "covers_new": True}
    assert known["val"] == {"count": 2, "kind": "val classes", "covers_new": False}
    assert population_of(Lines(), "test", Lines().episode("test", 0), 600) is None
    assert few_shot().population("test") == len(few_shot().classes["test"])


def test_the_interval_covers_new_tasks_only_where_episodes_do_not_repeat_tasks() -> None:
    class Table(Lines):
        def origins(self, split: str) -> tuple[str, ...]:
            return tuple(f"houses/{town}" for town in "abcde")

        def population(self, split: str) -> int:
            return 5

    shown = Table().episode("test", 0)
    assert population_of(Table(), "test", shown, 5) == {"count": 5, "kind": "test tasks", "covers_new": True}
    assert population_of(Table(), "test", shown, 6) == {"count": 5, "kind": "test tasks", "covers_new": False}
