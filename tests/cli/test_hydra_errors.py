"""The sentences about mistakes that Hydra and OmegaConf find; `test_bad_inputs.py` tests them from the command line."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from metarun.cli.hydra_errors import JOB_NOTE, explain, keys, nearest_key, not_composed, one_line
from metarun.errors import UserError

CONFIG = OmegaConf.create({"task": {"shots": 1, "ways": None}, "hydra": {"verbose": False}, "seed": 0})


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("task.shotss", " Did you mean 'task.shots'?"),
        ("tsak.shots", " Did you mean 'task.shots'?"),
        ("shots", " Did you mean 'task.shots'?"),
        ("sead", " Did you mean 'seed'?"),
        ("banana", ""),
    ],
)
def test_the_nearest_key_may_differ_in_its_group_or_its_name(key: str, hint: str) -> None:
    assert nearest_key(key, list(keys(CONFIG))) == hint


def test_hydras_own_keys_are_offered_only_if_asked_for() -> None:
    assert list(keys(CONFIG)) == ["task", "task.shots", "task.ways", "seed"]
    assert "hydra.verbose" in list(keys(CONFIG, hydra=True))


def test_the_users_mistake_is_found_behind_other_exceptions() -> None:
    error = RuntimeError("composing failed")
    error.__cause__ = UserError("task.shots=0 must be at least 1.")
    assert explain(error) == "task.shots=0 must be at least 1."


def test_an_exception_of_a_job_is_a_bug_whatever_it_says() -> None:
    error = UserError("looks like a mistake")
    error.add_note(f"{JOB_NOTE}outputs/x")
    assert explain(error) is None
    assert explain(KeyError("a bug")) is None


def test_a_missing_value_and_an_unwritable_folder_are_sentences() -> None:
    config = OmegaConf.create({"task": {"shots": "???"}})
    with pytest.raises(Exception, match="shots") as caught:
        OmegaConf.to_container(config, throw_on_missing=True)
    assert explain(caught.value) == "'task.shots' has no value; give one with task.shots=VALUE."
    assert explain(PermissionError(13, "Permission denied", "run")) == (
        "run cannot be written (Permission denied); choose another run folder with hydra.run.dir=FOLDER."
    )


def test_several_values_without_m_are_explained() -> None:
    sentence = not_composed("Ambiguous value for argument 'seed=0,1'\n1. To use it as a list, use key=[value1,value2]")
    assert sentence == "'seed=0,1' gives several values: add -m to run each of them, or write 'seed=[0,1]' for a list."


@pytest.mark.parametrize(("text", "line"), [("a\n  b", "a b."), ("why?", "why?"), ("", ".")])
def test_a_message_becomes_one_line(text: str, line: str) -> None:
    assert one_line(text) == line


@pytest.mark.parametrize(
    ("group", "advice"),
    [
        ("task/source", " Only task=stream has it; give task=stream too, or leave task/source out."),
        ("algo/update", " Only algo=gbml has it; give algo=gbml too, or leave algo/update out."),
        ("banana", ""),
    ],
)
def test_a_group_below_another_one_names_the_option_that_has_it(group: str, advice: str) -> None:
    sentence = not_composed(f"Could not override '{group}'. No match in the defaults list.")
    assert sentence == f"'{group}' is not a group of this command.{advice}"


def test_a_job_that_was_killed_is_no_bug_and_has_a_remedy() -> None:
    class UncompletedJobError(Exception):
        """As submitit's."""

    sentence = explain(UncompletedJobError("Job 999_0 (task: 0) with path a.pkl\nhas not produced any output (state: FAILED)"))
    assert sentence is not None
    assert "without a result: Job 999_0 (task: 0) with path a.pkl has not produced any output (state: FAILED). The logs below" in sentence
    assert sentence.endswith("the same command with resume=auto finishes the sweep.")
