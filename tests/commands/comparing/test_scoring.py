"""The evaluation of each run on the same episodes: a stored one, or a new one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from run_folders import write_evaluation, write_run

from metarun.commands.comparing import scoring
from metarun.commands.comparing.evaluations import Evaluation, read_evaluation
from metarun.commands.comparing.runs import Run, find_runs, read_run
from metarun.commands.comparing.scoring import episodes_of, keys_of_episodes, scored
from metarun.errors import UserError


def of(folder: Path) -> Run:
    run = read_run(folder)
    assert run is not None
    return run


def never(run: Run, words: Sequence[str]) -> Path:
    raise AssertionError("there is a stored evaluation")


def test_a_stored_evaluation_of_these_settings_is_read(tmp_path: Path):
    folder = write_run(tmp_path / "run")
    write_evaluation(folder / "eval/a", [0.5, 1.0])
    write_evaluation(folder / "eval/b", [0.5, 1.0], settings={"task.shots": 5})
    (found,) = scored([of(folder)], "test", ["episodes=2"], never)
    assert found.evaluation is not None
    assert found.evaluation.folder.name == "a"
    (found,) = scored([of(folder)], "test", ["++task.shots=5", "episodes=2", "device.threads=1", "by_step=last"], never)
    assert found.evaluation is not None
    assert found.evaluation.folder.name == "b"
    (found,) = scored([of(folder)], "test", ["episodes=2", "task.shots=1", "norm=null"], never)
    assert found.evaluation is not None
    assert found.evaluation.folder.name == "a", "one shot is what the run has"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ["episodes=3"]),
        ({}, ["episodes=2", "seed=1"]),
        ({}, ["episodes=2", "inner_steps=5"]),
        ({"csv": False}, ["episodes=2"]),
        ({"report": {"step": 30}}, ["episodes=2"]),
        ({"report": {"split": "val"}}, ["episodes=2"]),
        ({"report": {"checkpoint": "run/checkpoints/last.pt"}}, ["episodes=2"]),
        ({"report": {"checkpoint": ["run/checkpoints/best.pt", "b/checkpoints/best.pt"]}}, ["episodes=2"]),
    ],
)
def test_an_evaluation_of_other_settings_or_of_another_checkpoint_is_made_anew(tmp_path: Path, change: dict[str, Any], words: list[str]):
    folder = write_run(tmp_path / "run")
    write_evaluation(folder / "eval/a", [0.5, 1.0], **change)
    asked: list[list[str]] = []

    def evaluate(run: Run, words: Sequence[str]) -> Path:
        asked.append(list(words))
        return write_evaluation(run.folder / "eval/new", [0.25, 0.75])

    (found,) = scored([of(folder)], "test", words, evaluate)
    assert asked == [["split=test", *words]]
    assert found.evaluation is not None
    assert found.evaluation.mean == 0.5


def test_without_a_way_to_evaluate_the_reason_is_given_and_an_evaluation_without_episodes_counts(tmp_path: Path):
    folder = write_run(tmp_path / "run")
    (found,) = scored([of(folder)], "test")
    assert found.reason == "it has no evaluation with split=test episodes=600 seed=0"
    write_evaluation(folder / "eval/a", [0.5, 1.0], csv=False)
    (found,) = scored([of(folder)], "test", ["episodes=2"])
    assert found.evaluation is not None
    assert found.evaluation.scores() is None


def test_a_run_that_cannot_be_evaluated_gives_its_reason(tmp_path: Path):
    def evaluate(run: Run, words: Sequence[str]) -> Path:
        raise UserError("the data are gone.")

    folder = write_run(tmp_path / "run")
    assert scored([of(folder)], "test", (), evaluate) == [(of(folder), None, "the data are gone.")]
    (folder / "checkpoints" / "best.pt").unlink()
    assert scored([of(folder)], "test", (), never)[0].reason == "it has no checkpoint"


def test_a_stream_has_as_many_test_episodes_as_its_task_says(tmp_path: Path):
    folder = write_run(tmp_path / "run", task__trajectories=2)
    write_evaluation(folder / "eval/a", [0.5, 1.0], task__trajectories=2)
    assert scored([of(folder)], "test", (), never)[0].evaluation is not None


def test_an_evaluation_that_stands_for_itself_counts_unless_it_was_asked_otherwise(tmp_path: Path):
    (run,) = find_runs([write_evaluation(tmp_path / "scored", [0.5, 1.0], run=tmp_path / "gone")])
    assert scored([run], "test", (), never)[0].evaluation is not None
    assert scored([run], "test", ["task.shots=5"], never)[0].reason is not None
    assert scored([run], "val", (), never)[0].reason == "this evaluation is of other episodes: split=test episodes=2 seed=0"


def test_the_usual_number_and_seed_of_episodes_are_those_of_the_config_of_eval():
    config = yaml.safe_load((Path(__file__).parents[3] / "configs" / "eval.yaml").read_text())
    assert (config["episodes"], config["seed"]) == (scoring.USUAL_EPISODES, scoring.USUAL_SEED)
    from metarun.commands.comparing.evaluations import DEFAULTS
    from metarun.commands.comparing.reading import text_of

    assert {key: text_of(config[key]) for key in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"seed": 5}, True),
        ({"task__train_ways": 20}, True),
        ({"task__root": "elsewhere"}, True),
        ({"task__classes": {"train": ["c"], "test": ["a"]}}, True),
        ({"task__classes": {"train": ["b"], "test": ["d"]}}, False),
        ({"task__shots": 5}, False),
        ({"report": {"seed": 1}}, False),
        ({"report": {"episodes": 3}}, False),
        ({"report": {"episodes": [2]}}, False),
        ({"report": {"split": "val"}}, False),
        ({"report": {"baseline": 0.5}}, False),
        ({"task__rating": "stars", "task__item_ids": False}, True),
    ],
)
def test_evaluations_have_the_same_episodes_where_nothing_that_changes_an_episode_differs(
    tmp_path: Path, change: dict[str, Any], same: bool
):
    classes = {"task__classes": {"train": ["b"], "test": ["a"]}}
    one, other = (
        read_evaluation(write_evaluation(tmp_path / name, [0.5, 1.0], run=tmp_path, **{**classes, **keys}))
        for name, keys in (("a", {}), ("b", change))
    )
    assert isinstance(one, Evaluation)
    assert isinstance(other, Evaluation)
    assert (episodes_of(one) == episodes_of(other)) is same


def mixture(order: Sequence[str] = ("line", "sinusoid"), shots: int | None = 10, **keys: Any) -> dict[str, Any]:
    """The config of a mixture whose sources have the shots, with its own keys."""
    sources = {name: {"_target_": name, "shots": shots, "queries": 100, "eval_seed": 0} for name in order}
    return {"_target_": "mixture", "sources": sources, "only": None, "weights": None, "shots": None, **keys}


@pytest.mark.parametrize(
    ("task", "same"),
    [
        (mixture(shots=5) | {"shots": 10, "queries": 100, "eval_seed": 0}, True),
        (mixture(channels=1, seed=3), True),
        (mixture(("line", "sinusoid", "quadratic"), only=["line", "sinusoid"]), True),
        (mixture(("line", "sinusoid", "quadratic"), weights={"line": 3, "sinusoid": 1, "quadratic": 0}), True),
        (mixture(weights={"line": 3, "sinusoid": 0}), False),
        (mixture(shots=5), False),
        (mixture(("sinusoid", "line")), False),
    ],
)
def test_the_episodes_of_a_mixture_are_those_of_its_sources_wherever_their_sizes_were_set(task: dict[str, Any], same: bool):
    one, other = (keys_of_episodes({"task": each}, "test") for each in (mixture(), task))
    assert (one == other) is same
