"""Paths arrive as they were typed, whatever Hydra's grammar makes of their characters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from metarun.cli.paths import as_typed, is_path_key, typed_paths
from metarun.errors import UserError

if TYPE_CHECKING:
    from command_line import Calls, CommandLine

pytest_plugins = ("command_line",)


def value(override: str) -> object:
    return OverridesParser.create().parse_override(as_typed(override)).value()


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/somebody")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "key",
    [
        *("resume", "checkpoint", "save", "init_from", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "task.root"),
        *("task.split_file", "task.path", "task.photo_root", "task.sources.a.root", "algo.words_files", "task.folders"),
    ],
)
def test_a_key_that_names_a_path_takes_any_name(key: str) -> None:
    assert is_path_key(key)
    for name in ("a=b,c (2)", "M\u00fcller & Sohn", "2024", "true", "1e5", "it's", " x ", "#1", "a:b", "100 %", "{x}", "$5"):
        assert value(f"{key}={name}") == name
    assert value(f"{key}=~/photos") == "/somebody/photos"
    assert value(f"++{key}=null") is None


@pytest.mark.parametrize("key", ["steps", "trust", "hydra.job.chdir", "algo.inner_lr", "task.direction", "experiment", "task.rooted"])
def test_other_keys_name_no_path(key: str) -> None:
    assert not is_path_key(key)


def test_a_value_that_begins_like_a_path_is_one_whatever_its_key() -> None:
    for name in ("/data/a,b=c", "./a b[1]", "../x(1)", "/"):
        assert value(f"task.photos={name}") == name
    assert value("task.photos=~/a,b") == "/somebody/a,b"


def test_letters_that_hydra_does_not_know_are_allowed_in_any_value() -> None:
    assert value("task.name=M\u00fcller") == "M\u00fcller"
    assert value("task.names=[M\u00fcller,b,3]") == ["M\u00fcller", "b", 3]
    assert value("task.names={a: \u5199, b: [\u00fc,'x,y'], c: 1}") == {"a": "\u5199", "b": ["\u00fc", "x,y"], "c": 1}
    assert value("task.name=a#b") == "a#b"


@pytest.mark.parametrize("word", ["steps=5", "task.shots=[1,2]", "~task.shots", "task.name='\u00fc'", "x={a:1}", "task.x=${steps}", "a"])
def test_other_words_stay_as_they_are(word: str) -> None:
    assert as_typed(word) == word


def test_lists_quotes_null_and_interpolations_keep_their_meaning() -> None:
    assert value("checkpoint=[a b,~/c,'d,e',\"f\"]") == ["a b", "/somebody/c", "d,e", "f"]
    assert value("checkpoint='a, b'") == "a, b"
    assert as_typed("hydra.run.dir=~/x=${now:%Y},1") == "hydra.run.dir='/somebody/x=${now:%Y},1'"


def test_a_file_that_exists_is_meant_before_any_grammar(tmp_path: Path) -> None:
    for name in ("[a,b]", "'q'", "a,b", "${x}", "x=1,y=2"):
        (tmp_path / name).touch()
    for name in ("[a,b]", "'q'", "a,b"):
        assert value(f"checkpoint={name}") == name
        assert typed_paths(name) == [name]
    assert as_typed("checkpoint=${x}") == "checkpoint='\\${x}'"
    assert value("checkpoint=[x=1,y=2,c]") == ["x=1,y=2", "c"]
    assert as_typed("checkpoint=a,b,c", sweep=True) == "checkpoint='a,b','c'"


def test_a_sweep_splits_paths_at_its_commas() -> None:
    assert as_typed("task.root=~/a b,/\u00fc", sweep=True) == "task.root='/somebody/a b','/\u00fc'"
    assert as_typed("checkpoint=[a,b],[c,d]", sweep=True) == "checkpoint=['a','b'],['c','d']"
    assert as_typed("task.root=choice(a,b)", sweep=True) == "task.root=choice(a,b)"
    assert as_typed("hydra.sweep.dir=a,b", sweep=True) == "hydra.sweep.dir='a,b'"
    assert as_typed("task.name=\u00fc,b", sweep=True) == "task.name='\u00fc',b"


@pytest.mark.parametrize("key", ["resume", "checkpoint", "task.root", "hydra.run.dir"])
def test_an_empty_path_is_refused(key: str) -> None:
    """A shell gives `checkpoint=` for `checkpoint=$RUN` without a RUN; the current folder is never meant."""
    with pytest.raises(UserError, match=f"{key}= names no path; give one, or {key}=null for none"):
        as_typed(f"{key}=")


def test_a_sweep_over_strange_names_hands_each_job_its_path(command_line: CommandLine, calls: Calls, tmp_path: Path) -> None:
    folder = tmp_path / "a=b, c's [\u00fc]"
    words = ("-m", "checkpoint=~/x y,[p q,r]", f"hydra.sweep.dir={folder}", "task.root=/M\u00fcller (1)")
    assert command_line("eval", *words).code == 0
    assert [config["checkpoint"] for config, _ in calls.evaluate] == ["/somebody/x y", ["p q", "r"]]
    assert {config["task"]["root"] for config, _ in calls.evaluate} == {"/M\u00fcller (1)"}
    assert {path.parent for _, path in calls.evaluate} == {folder}


def test_a_run_folder_may_have_any_name(command_line: CommandLine, calls: Calls, tmp_path: Path) -> None:
    for name in ("a=b, c's [\u00fc]", "2024", "#$HOME"):
        (tmp_path / name).mkdir()
        assert command_line("train", f"hydra.run.dir={name}", f"init_from={name}").code == 0
        config, folder = calls.train[-1]
        assert (folder, config["init_from"]) == (tmp_path / name, name)
