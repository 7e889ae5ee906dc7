"""Names of runs, and the runs that differ in their seed alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from run_folders import config_of, write_evaluation, write_run, write_typed

from metarun.commands.comparing.naming import may_name, names, setting_of, settings
from metarun.commands.comparing.runs import Run, find_runs


def runs_of(folder: Path, *jobs: dict[str, Any], typed: bool = True) -> list[Run]:
    paths = []
    for number, job in enumerate(jobs):
        words = [f"{key.replace('__', '.')}={value}" for key, value in job.items()] if typed else None
        paths.append(write_run(folder / f"{number}_job", typed=words, **job))
    return find_runs(paths)


def test_a_name_has_the_typed_keys_that_differ_and_the_seed_comes_last(tmp_path: Path):
    jobs = [{"seed": seed, "algo": algo, "steps": 60} for algo in ("maml", "protonet") for seed in (0, 1)]
    runs = runs_of(tmp_path, *jobs)
    assert names(runs) == ["maml seed=0", "maml seed=1", "protonet seed=0", "protonet seed=1"]
    assert [(each.name, each.places) for each in settings(runs)] == [("maml", (0, 1)), ("protonet", (2, 3))]


def test_runs_that_differ_in_their_seed_alone_are_named_by_it_and_form_one_setting_with_the_name_of_the_algorithm(tmp_path: Path):
    runs = runs_of(tmp_path, {"seed": 0}, {"seed": 1}, {"seed": 2})
    assert names(runs) == ["seed=0", "seed=1", "seed=2"]
    assert [(each.name, each.places) for each in settings(runs)] == [("maml", (0, 1, 2))]


def test_a_key_that_one_run_left_out_has_the_value_of_its_config(tmp_path: Path):
    runs = runs_of(tmp_path, {"algo__inner_lr": 0.4}, {"seed": 0})
    assert names(runs) == ["algo.inner_lr=0.4", "algo.inner_lr=0.1"]


def test_without_typed_words_the_configs_say_what_differs(tmp_path: Path):
    one = {"algo": "maml"}
    two = {"algo": "protonet", "seed": 1}
    runs = runs_of(tmp_path, one, two, typed=False)
    assert names(runs) == ["maml seed=0", "protonet seed=1"], "algo.inner_lr belongs to another option"


def test_runs_of_one_name_have_the_names_of_their_folders(tmp_path: Path):
    runs = runs_of(tmp_path, {"seed": 0}, {"seed": 0})
    assert names(runs) == ["maml (0_job)", "maml (1_job)"]
    assert [each.places for each in settings(runs)] == [(0,), (1,)], "two runs of one seed are no spread over seeds"
    write_run(tmp_path / "a/run", typed=["seed=0"])
    write_run(tmp_path / "b/run", typed=["seed=0"])
    assert names(find_runs([tmp_path / "a", tmp_path / "b"])) == ["maml (a/run)", "maml (b/run)"]


def test_a_single_run_has_the_name_of_its_algorithm(tmp_path: Path):
    assert names(runs_of(tmp_path, {"algo": "anil"})) == ["anil"]


def test_a_difference_that_was_not_typed_joins_the_name_where_names_would_be_equal(tmp_path: Path):
    """Such as steps=…, typed when one of the runs was resumed."""
    write_run(tmp_path / "a", typed=["algo=maml"], steps=60)
    write_run(tmp_path / "b", typed=["algo=maml"], steps=90)
    assert names(find_runs([tmp_path / "a", tmp_path / "b"])) == ["maml steps=60", "maml steps=90"]


def test_the_sources_of_a_mixture_are_named_by_their_list_as_one_types_it(tmp_path: Path):
    """Hydra's words for `task.sources=[…]` and the keys of a source that one of the runs lacks are in no name."""
    sources = {name: {"_target_": f"metarun.{name}", "shots": 10, "queries": 100} for name in ("line", "omniglot")}
    listed = ["task=mixture", "+task@task.sources.omniglot=omniglot", "task.only=[omniglot]"]
    write_run(tmp_path / "a", typed=["task=mixture"], task="mixture", task__sources=sources)
    write_run(tmp_path / "b", typed=listed, task="mixture", task__sources={"omniglot": sources["omniglot"]})
    write_run(tmp_path / "c", typed=["task=line"], task="line")
    runs = find_runs([tmp_path / "a", tmp_path / "b", tmp_path / "c"])
    assert names(runs) == ["mixture task.sources=[line,omniglot]", "mixture task.sources=[omniglot]", "line"]
    assert may_name("mixture task.sources=[omniglot]", runs[1])


def test_many_differences_that_were_not_typed_join_no_name(tmp_path: Path):
    for name, value in (("a", 1), ("b", 2)):
        write_run(tmp_path / name, typed=["algo=maml"], **{f"algo__key{number}": value for number in range(4)})
    assert names(find_runs([tmp_path / "a", tmp_path / "b"])) == ["maml (a)", "maml (b)"]


def test_a_path_in_a_name_is_short_and_a_name_obeys_no_terminal(tmp_path: Path):
    runs = runs_of(tmp_path, {"init_from": "/a/b/first/checkpoints/best.pt"}, {"init_from": "/a/b/second"}, {"init_from": "/a/\x1b[2Jx"})
    assert names(runs) == ["init_from=first", "init_from=second", "init_from=\\x1b[2Jx"]


def test_evaluations_are_named_by_what_was_asked(tmp_path: Path):
    paths = [write_evaluation(tmp_path / f"{n}", [0.5] * (n + 2), run=tmp_path / "run") for n in range(2)]
    assert names(find_runs(paths)) == ["maml (0)", "maml (1)"], "nothing says that the number was typed"
    for n, path in enumerate(paths):
        write_typed(path, [f"checkpoint={tmp_path}/run", f"episodes={n + 2}"])
    assert names(find_runs(paths)) == ["episodes=2", "episodes=3"]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"seed": 5}, True),
        ({"device": {"threads": 2}}, True),
        ({"log_every": 1}, True),
        ({"init_from": "other"}, True),
        ({"steps": 5}, False),
        ({"task__shots": 5}, False),
        ({"algo": "protonet"}, False),
    ],
)
def test_runs_of_one_setting_differ_in_the_seed_and_in_keys_without_influence(tmp_path: Path, change: dict[str, Any], same: bool):
    one, other = (setting_of(Run(tmp_path, config_of(**keys))) for keys in ({}, change))
    assert (one == other) is same
