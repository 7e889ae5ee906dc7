"""The words of a command line before Hydra reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from metarun.cli.arguments import fixed_keys, open_groups, prepare, resumed, run_folder, split
from metarun.errors import UserError


def test_only_keys_of_groups_that_are_not_chosen_are_left_open() -> None:
    assert open_groups(["task=omniglot", "task.shots=1", "algo.x=2", "seed=3"]) == ["task=omniglot", "task.shots=1", "++algo.x=2", "seed=3"]
    assert open_groups(["+task.shots=1", "~task.shots"]) == ["+task.shots=1", "~task.shots"]


def test_flags_keep_their_values_and_come_first() -> None:
    assert split(["a=1", "-c", "job", "b=2", "--info", "c=3"]) == (["-c", "job", "--info=all"], ["a=1", "b=2", "c=3"])
    assert split(["--info", "defaults", "a=1"]) == (["--info=defaults"], ["a=1"])


def test_a_path_in_quotes_or_a_sweep_is_left_alone() -> None:
    assert prepare("eval", ["checkpoint='a=b'"]) == ["checkpoint='a=b'"]
    assert prepare("eval", ["-m", "checkpoint=a,b"]) == ["-m", "checkpoint='a','b'"]


def test_a_config_folder_may_be_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somebody")
    assert split(["--config-dir=~/conf"]) == (["--config-dir=/somebody/conf"], [])


def test_an_unknown_flag_gets_the_nearest_one() -> None:
    with pytest.raises(UserError, match=r"there is no flag '--multirn'\. Did you mean '--multirun'"):
        split(["--multirn"])


def test_keys_with_a_single_value_stay_out_of_the_names_of_a_sweeps_jobs() -> None:
    assert fixed_keys(["steps=9", "seed=0,1", "algo=choice(a,b)", "task.name='x,y'"]) == ["steps", "task.name"]
    lists = ["logger=[tensorboard,wandb]", "backbone.widths=[4,4],[8,8]", "task.x=[a,'b,c']", "logger=[a,b],c"]
    assert fixed_keys(lists) == ["logger", "task.x"], "a comma in a list separates no values of a sweep"
    assert prepare("train", ["-m", "steps=9", "seed=0,1"])[:2] == ["-m", "hydra.job.config.override_dirname.exclude_keys=[steps]"]


@pytest.mark.parametrize(
    ("words", "path"),
    [(["resume=a", "resume=b"], "b"), (["resume='it\\'s'"], "it's"), (["resume=null"], None), (["steps=3"], None)],
)
def test_the_last_path_after_resume_counts(words: list[str], path: str | None) -> None:
    assert resumed(words) == path


def test_resume_may_name_the_run_its_checkpoints_or_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/checkpoints/last.pt").touch()
    assert {run_folder(f"{tmp_path}/run{inside}") for inside in ("", "/checkpoints", "/checkpoints/last.pt")} == {tmp_path / "run"}
    with pytest.raises(UserError, match="there is no such run folder"):
        run_folder(f"{tmp_path}/nowhere")
    with pytest.raises(UserError, match="it is no run, or it stopped before its first save"):
        run_folder(str(tmp_path))


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("task.source=omniglot", "task/source=omniglot"),
        ("task.source=glyphs,omniglot", "task/source=glyphs,omniglot"),
        ("task.source=null", "task.source=null"),
        ("task.source.image_size=28", "task.source.image_size=28"),
        ("task.source={a: 1}", "task.source={a: 1}"),
    ],
    ids=["name", "sweep", "null", "key", "mapping"],
)
def test_the_source_of_a_stream_may_be_named_as_a_key(typed: str, read: str):
    assert prepare("train", ["task=stream", typed])[-1] == read
    assert prepare("eval", ["checkpoint=run", "task=stream", typed])[-1] == read
    assert not prepare("eval", ["checkpoint=run", typed])[-1].startswith("task/source")
