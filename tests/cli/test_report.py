from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from metarun.cli.report import HELP, KEYS, main, request_of
from metarun.errors import UserError


def test_words_without_a_key_are_runs_and_the_others_are_keys():
    asked = request_of(["runs/a", "runs/b", "out=my page.html", "look=0", "samples=3,4", "names=A,B", "trust=mine", "only=steps"])
    assert asked["paths"] == ["runs/a", "runs/b"]
    assert (asked["out"], asked["look"], asked["samples"]) == ("my page.html", 0, [3, 4])
    assert (asked["titles"], asked["trust"], asked["only"], asked["overrides"]) == (["A", "B"], ["mine"], ["steps"], [])
    assert request_of(["run", "samples="])["samples"] == []
    assert asked["command"].startswith("metarun report runs/a runs/b 'out=my page.html'")


def test_settings_of_an_evaluation_go_on_to_it():
    assert request_of(["run", "episodes=50", "task.shots=5", "inner_steps=3"])["overrides"] == [
        "episodes=50",
        "task.shots=5",
        "inner_steps=3",
    ]


@pytest.mark.parametrize("split", ["test", "val", "train"])
def test_each_split_can_be_shown(split: str):
    assert request_of(["run", f"split={split}"])["split"] == split


def test_a_folder_with_an_equals_sign_is_a_run(tmp_path: Path):
    (tmp_path / "seed=1").mkdir()
    assert request_of([str(tmp_path / "seed=1")])["paths"] == [str(tmp_path / "seed=1")]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "metarun report needs a run"),
        (["out=a"], "metarun report needs a run"),
        (["run", "-x"], "metarun report knows no '-x'"),
        (["run", "out=a", "out=b"], "out= may occur once"),
        (["run", "out="], "out= has no value"),
        (["run", "ot=a"], "metarun report knows no 'ot=a'. Did you mean 'out'"),
        (["run", "look=many"], "look=many must be whole numbers"),
        (["run", "samples=-1"], "samples=-1 must be whole numbers"),
        (["run", "form=gif"], "form=gif: it is one of png, svg"),
        (["run", "split=trian"], "split=trian: it is one of test, val, train. Did you mean 'train'"),
        (["run", "score=no"], "score=no: it is one of true, false"),
        (["run", "out=[a,b]"], r"out=\[a,b\] must be one path"),
    ],
    ids=str,
)
def test_another_line_is_one_sentence(words: list[str], sentence: str):
    with pytest.raises(UserError, match=sentence):
        main(words)


def test_the_help_names_each_key():
    for key in KEYS:
        assert f"\n  {key} " in HELP
    assert main(["--help"]) == 0


def test_the_written_files_are_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    page = tmp_path / "r.html"
    page.write_bytes(b"x" * 1_200_000)
    asked: list[Any] = []
    monkeypatch.setattr("metarun.commands.comparing.runs.find_runs", lambda paths: paths)
    monkeypatch.setattr(
        "metarun.commands.reporting.report.report", lambda request, evaluate: asked.append(request) or [page, Path("a.png")]
    )
    assert main(["run", f"out={page}"]) == 0
    assert asked[0].paths == ["run"]
    assert capsys.readouterr().out == f"report: {page} (1.2 MB)\npictures: a.png\n"
