"""The words that metarun prints can be pasted into a shell, and Hydra reads the paths in them as they are."""

from __future__ import annotations

import os
import random
import shlex
import subprocess
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from metarun.cli.paths import as_typed, typed_paths
from metarun.errors import UserError
from metarun.files.paths import escape, expanded, is_folder, paths_of, quoted, word

NAMES = (
    "/a b",
    "it's",
    '"quoted"',
    "'quoted'",
    "a=b,c",
    "[a,b]",
    "(1) {x}",
    "$HOME",
    "${oc.env:HOME}",
    r"back\slash" + "\\",
    r"\${x}",
    "M\u00fcller",
    "M\u00e4\u00df/\u5199\u771f",
    "~x",
    "~",
    "#1",
    "null",
    "true",
    "2024",
    "1e5",
    " ends ",
    "two\nlines\\\n",
    "`ls`; &",
    "*",
    "-x",
    "%s",
    "!",
)


def read(override: str) -> object:
    """Return the value that a command of metarun gets."""
    value = OmegaConf.create({"value": OverridesParser.create().parse_override(as_typed(override)).value()})
    return OmegaConf.to_container(value, resolve=True)["value"]  # type: ignore[index, call-overload]


def test_a_printed_word_goes_through_a_shell_and_hydra_unchanged() -> None:
    words = [word("checkpoint", name) for name in NAMES] + [word("checkpoint", name, "/other") for name in NAMES]
    printed = subprocess.run(["sh", "-c", f"printf '%s\\0' {' '.join(words)}"], capture_output=True, check=True).stdout
    typed = printed.decode().split("\0")[:-1]
    paths = [f"./{name}" if name.startswith("~") else name for name in NAMES]  # `~x` alone would be a home folder
    assert [read(each) for each in typed] == [*paths, *([path, "/other"] for path in paths)]
    assert [typed_paths(each.partition("=")[2]) for each in typed] == [*([path] for path in paths), *([path, "/other"] for path in paths)]


def test_any_text_in_hydras_quotes_is_read_as_it_is() -> None:
    draw = random.Random(0)
    for _ in range(300):
        text = "".join(draw.choice("ab /\\'\"[]{}()$#=,:~\u00fc.%@!?;\n") for _ in range(draw.randint(1, 8)))
        assert read(f"checkpoint={quoted(text)}") == text
        assert read(shlex.split(word("save", text))[0]) in (text, f"./{text}")


def test_an_ordinary_path_is_printed_without_quotes() -> None:
    assert word("resume", "outputs/omniglot-maml/2026-01-01") == "resume=outputs/omniglot-maml/2026-01-01"
    assert word("checkpoint", "/a", "/b") == "'checkpoint=[/a,/b]'"


def test_quotes_and_backslashes_before_them_are_escaped() -> None:
    assert escape(r"it's \ a\'") == r"it\'s \ a\\\'"
    assert escape("end\\") == "end\\\\"


def test_the_tilde_is_the_home_folder_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somebody")
    assert expanded("~/photos") == Path("/somebody/photos")
    assert expanded("~no_such_user/photos") == Path("~no_such_user/photos")
    assert expanded("a~b") == Path("a~b")


def test_a_run_is_named_by_a_path_or_a_list_of_paths() -> None:
    assert paths_of("run") == paths_of(Path("run")) == "run"
    assert paths_of(["a", Path("b")]) == ["a", "b"]
    for given, hint in ((3, "value is a int"), ({"folder": "run"}, r"result\['folder'\]"), ([None], "NoneType")):
        with pytest.raises(UserError, match=f"name a run by its folder or a checkpoint.*{hint}"):
            paths_of(given)


def test_a_folder_and_a_file_are_told_apart_and_a_pipe_is_refused_unopened(tmp_path: Path):
    words = {"missing": "nothing there.", "shown": "it", "remedy": "give a file"}
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    assert is_folder(tmp_path, **words)
    assert not is_folder(tmp_path / "file", **words)
    for path in (tmp_path / "none", tmp_path / "file" / "below", Path("\0")):
        with pytest.raises(UserError, match=r"nothing there\."):
            is_folder(path, **words)
    with pytest.raises(UserError, match="it is a pipe, a socket or a device; give a file"):
        is_folder(tmp_path / "pipe", **words)
