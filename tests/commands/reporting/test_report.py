"""`metarun report`: its numbers are those of the files, it asks for no network, and it leaves other files alone."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from run_folders import write_evaluation, write_run

from metarun.commands.comparing.runs import Run
from metarun.commands.reporting.drawing import PICTURES, is_picture
from metarun.commands.reporting.report import Request, _made, report
from metarun.errors import UserError


def runs(folder: Path) -> list[str]:
    """Write two runs with evaluations of 120 episodes, and return their folders."""
    for name, shift in (("maml", 0.0), ("protonet", 0.1)):
        run = write_run(folder / name, (0.3, 0.5 + shift), typed=[f"algo={name}"], algo=name)
        write_evaluation(run / "eval" / "test", [0.5 + shift + 0.001 * (n % 7) for n in range(120)], algo=name, report={"ways": 5})
    return [str(folder / "maml"), str(folder / "protonet")]


def write(folder: Path, paths: Sequence[str], **keys: object) -> str:
    (page, *_) = report(Request(paths, out=str(folder / "r.html"), look=0, samples=(), **keys), None)  # type: ignore[arg-type]
    return page.read_text(encoding="utf-8")


def test_the_numbers_of_the_page_are_those_of_the_files(tmp_path: Path) -> None:
    html = write(tmp_path, runs(tmp_path))
    for name in ("maml", "protonet"):
        stored = json.loads((tmp_path / name / "eval" / "test" / "report.json").read_text())
        assert f'data-value="{stored["mean"]}"' in html
        assert f"{100 * stored['mean']:.1f} % ± 1.0" in html
        trained = json.loads((tmp_path / name / "report.json").read_text())
        assert f'data-value="{trained["best"]["score"]}"' in html


def test_the_verdict_is_the_paired_difference_of_the_scores_by_episode(tmp_path: Path) -> None:
    html = re.sub(r"</?code>", "", write(tmp_path, runs(tmp_path)))
    assert re.search(
        r"protonet beats maml by 10\.0\d* ± 0\.00\d* points on the same 120 test tasks|protonet beats maml by 10.00 ± 0.00 points", html
    )


def test_a_report_asks_for_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("a report opened a socket")

    monkeypatch.setattr(socket, "socket", refused)
    html = write(tmp_path, runs(tmp_path))
    assert not re.search(r"(src|href)=\"(?!#|data:)|@import|url\((?!#)", html)


def test_a_run_is_scored_where_it_has_no_evaluation(tmp_path: Path) -> None:
    paths = [str(write_run(tmp_path / "a", typed=["algo=maml"]))]
    asked: list[tuple[str, list[str]]] = []

    def evaluate(run: Run, words: Sequence[str]) -> Path:
        asked.append((run.folder.name, list(words)))
        return write_evaluation(run.folder / "eval" / "test", [0.5] * 600, settings={"episodes": 600})

    out = str(tmp_path / "r.html")
    (page,) = report(Request(paths, out=out, look=0, samples=()), evaluate)
    assert asked == [("a", ["split=test"])]
    assert "This report has scored the run on the split test, since the run had no evaluation with these settings." in page.read_text()
    report(Request(paths, out=out, look=0, samples=()), evaluate)
    assert len(asked) == 1, "the stored evaluation is taken"


@pytest.mark.parametrize(
    ("count", "runs", "words"), [(2, 2, "all 2 runs on the split val, since they"), (1, 3, "1 of the 3 runs on the split val, since it")]
)
def test_the_remark_on_new_scores_counts_the_runs(count: int, runs: int, words: str) -> None:
    assert _made(count, runs, "val") == f"This report has scored {words} had no evaluation with these settings."


def test_differences_to_a_typed_base_have_its_unit(tmp_path: Path) -> None:
    paths = runs(tmp_path)
    for name, shift in (("cnp", 0.0), ("tnp", 0.5)):
        run = write_run(tmp_path / name, metric="mse", typed=[f"algo={name}"], algo=name, task={"shots": 10}, options={"task": "sinusoid"})
        write_evaluation(run / "eval" / "t", [1.0 + shift + 0.1 * (n % 7) for n in range(120)], metric="mse", algo=name, task={"shots": 10})
        paths.append(str(run))
    html = write(tmp_path, paths, titles=["maml", "protonet", "cnp", "tnp"], base="cnp")
    assert "difference (mean squared error)" in html
    assert "difference (points)" not in html


def test_with_score_false_nothing_is_scored(tmp_path: Path) -> None:
    html = re.sub(r"</?code>", "", write(tmp_path, [str(write_run(tmp_path / "a"))], score=False))
    assert "No run has been tested. maml has the best validation score" in html


def test_predictions_that_cannot_be_computed_are_a_remark(tmp_path: Path) -> None:
    (page,) = report(Request(runs(tmp_path), out=str(tmp_path / "r.html"), look=2), None)
    assert "The predictions of <code>maml</code> are not shown" in page.read_text()


def test_a_file_that_is_no_report_is_left_alone(tmp_path: Path) -> None:
    paths, mine = runs(tmp_path), tmp_path / "r.html"
    mine.write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="no report of metarun"):
        write(tmp_path, paths)
    assert mine.read_text() == "mine"
    mine.unlink()
    assert write(tmp_path, paths) == write(tmp_path, paths)


def test_bad_places_and_names_are_refused(tmp_path: Path) -> None:
    paths = runs(tmp_path)
    (tmp_path / "mine").write_text("mine", encoding="utf-8")
    for request, sentence in (
        (Request(paths, out=str(tmp_path / "no" / "r.html")), "there is no folder"),
        (Request(paths, out=str(tmp_path)), "is a folder"),
        (Request(paths, out=str(tmp_path / "r.html"), titles=["one"]), "1 names, and there are 2 runs"),
        (Request(paths, out=str(tmp_path / "r.html"), look=0, samples=(), base="protone"), "Did you mean|did you mean|protonet"),
        (Request(paths, out=str(tmp_path / "r.html"), look=0, samples=(), only=["none"]), "has the pictures scores"),
        (Request(paths, out=str(tmp_path / "r.html"), figures=str(tmp_path / "mine")), "figures=.*mine: a file is in the way"),
        (Request(paths, out=str(tmp_path / "r.html"), figures=str(tmp_path / "mine" / "f")), "figures=.*f: a file is in the way"),
        (Request(paths, out=str(tmp_path / "r.html"), curve="val/acuracy"), "no run has logged this.*Did you mean 'val/accuracy'"),
        (Request([str(tmp_path / "nothing")], out=str(tmp_path / "r.html")), "no file or folder"),
    ):
        with pytest.raises(UserError, match=sentence):
            report(request, None)
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"only": ["steps", "stps"]}, "only=stps: a report has the pictures scores, .*Did you mean 'steps'"),
        ({"base": "mamll"}, "base=mamll names no model .*it has maml, protonet.*Did you mean 'maml'"),
    ],
)
def test_a_name_that_no_report_has_is_refused_before_a_run_is_scored(tmp_path: Path, words: dict[str, Any], sentence: str) -> None:
    paths = [str(write_run(tmp_path / name, typed=[f"algo={name}"], algo=name)) for name in ("maml", "protonet")]

    def evaluate(run: Run, _: Sequence[str]) -> Path:
        raise AssertionError(f"{run.folder} was scored")

    with pytest.raises(UserError, match=sentence):
        report(Request(paths, out=str(tmp_path / "r.html"), **words), evaluate)


def test_the_documented_names_of_pictures_are_those_of_the_program() -> None:
    text = (Path(__file__).parents[3] / "docs" / "report.md").read_text(encoding="utf-8").partition("## Pictures")[2]
    named = re.findall(r"`(\w+)`", text.partition("`scores`,")[2].partition(". `only=")[0])
    assert sorted(["scores", *named]) == sorted([*PICTURES, "curve_val_accuracy"])
    assert all(map(is_picture, [*PICTURES, "curve_val_accuracy", "stream_matrix_2"]))
    assert not is_picture("stps")


def test_pictures_are_written_as_files(tmp_path: Path) -> None:
    request = Request(runs(tmp_path), out=str(tmp_path / "r.html"), look=0, samples=(), figures=str(tmp_path / "f"), form="svg")
    _, *pictures = report(request, None)
    assert [path.name for path in pictures] == ["scores.svg", "differences.svg", "curve_val_accuracy.svg"]


def test_names_with_markup_are_escaped_from_the_folder_to_the_page(tmp_path: Path) -> None:
    paths = []
    for name in ("<script>alert(1)</script>"[:8], "b&\x1b[2J"):
        run = write_run(tmp_path / name.replace("/", "_"), typed=[f"+note={name}"], note=name)
        write_evaluation(run / "eval" / "t", [0.5, 0.6], note=name, report={"by_family": {"<b>": {"mean": 0.5, "ci95": 0.1}}})
        paths.append(str(run))
    html = write(tmp_path, paths)
    assert "<b>" not in html
    assert html.count("<script>") == 1
    assert "\x1b" not in html


def test_damaged_reports_give_a_page(tmp_path: Path) -> None:
    odd = {"by_step": "x", "steps": 3, "ratings": [1], "stream": {"lengths": None}, "by_target": {"a": 1}, "population": 3, "bayes": "x"}
    run = write_run(tmp_path / "a", metric="accuracy")
    write_evaluation(
        run / "eval" / "t", [0.5, 0.6], report={**odd, "overlap": 3, "pretraining": {"named": 1}, "by_presentation": {}, "ways": "x"}
    )
    assert "Scores" in write(tmp_path, [str(run)])


def test_21_runs_stay_small(tmp_path: Path) -> None:
    for number in range(21):
        run = write_run(tmp_path / f"r{number}", typed=[f"algo__inner_lr={number}"], algo__inner_lr=number)
        write_evaluation(run / "eval" / "t", [0.5 + 0.01 * number + 0.001 * (n % 5) for n in range(600)], algo__inner_lr=number)
    assert len(write(tmp_path, [str(tmp_path)])) < 500_000
