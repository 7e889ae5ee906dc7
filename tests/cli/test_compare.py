"""`metarun compare`: its words, and what it prints."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from run_folders import write_evaluation, write_run

from metarun.cli import compare
from metarun.cli.compare import parse
from metarun.commands.comparing.runs import Run, find_runs
from metarun.commands.comparing.scores import check_base
from metarun.errors import UserError

if TYPE_CHECKING:
    from command_line import CommandLine

pytest_plugins = ("command_line",)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two algorithms with two seeds each, in a folder with a space in its name, without evaluations."""
    jobs = [(algo, seed) for algo in ("maml", "protonet") for seed in (0, 1)]
    for number, (algo, seed) in enumerate(jobs):
        folder = tmp_path / "a sweep" / f"{number}_algo-{algo}_seed-{seed}"
        write_run(folder, [0.3, 0.5 + 0.1 * number], algo=algo, seed=seed, typed=[f"algo={algo}", f"seed={seed}"])
    return tmp_path / "a sweep"


@pytest.fixture
def evaluates(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Write an evaluation in place of making one; return the words of each."""
    asked: list[list[str]] = []

    def evaluator(trust: str | None, count: int) -> Callable[[Run, Sequence[str]], Path]:
        def evaluate(run: Run, words: Sequence[str]) -> Path:
            asked.append(list(words))
            scores = [0.5 + 0.1 * len(run.algorithm) / 10 + 0.01 * episode for episode in range(3)]
            return write_evaluation(run.folder / "eval/new", scores, run=run.folder, algo=run.algorithm, seed=run.seed or 0)

        return evaluate

    monkeypatch.setattr(compare, "evaluator", evaluator)
    return asked


def test_a_sweep_is_a_table_by_validation_with_the_command_that_scores_it(command_line: CommandLine, sweep: Path):
    answer = command_line("compare", sweep)
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0] == "glyphs, 5-way 1-shot: mean accuracy of validation tasks, the highest first"
    assert [line.split()[:2] for line in lines[2:5]] == [["run", "seeds"], ["protonet", "2"], ["maml", "2"]]
    assert all(len(line) <= 80 for line in lines[:7])
    assert lines[-1] == f"score them on the same test tasks with: metarun compare '{sweep}' split=test"
    several = command_line("compare", *sorted(sweep.iterdir()), "seeds=all")
    assert [line.split()[:2] for line in several.out.splitlines()[3:6]] == [
        ["protonet", "2"],
        ["protonet", "seed=0"],
        ["protonet", "seed=1"],
    ]


def test_test_scores_are_read_or_made_on_the_episodes_that_are_asked_for(
    command_line: CommandLine, sweep: Path, evaluates: list[list[str]]
):
    answer = command_line("compare", sweep, "split=test", "episodes=3")
    assert answer.code == 0
    assert evaluates == [["split=test", "episodes=3"]] * 4
    assert "minus protonet" in answer.out
    assert "protonet has the best validation score." in answer.out
    again = command_line("compare", sweep, "split=test", "episodes=3", "base=maml")
    assert len(evaluates) == 4, "now they are stored"
    assert "minus maml" in again.out


def test_a_table_is_written_in_the_format_of_its_file(command_line: CommandLine, sweep: Path, tmp_path: Path):
    for name in ("t.md", "t.csv", "t.json", "t.txt"):
        answer = command_line("compare", sweep, f"out={tmp_path / name}")
        assert (answer.code, answer.out) == (0, f"wrote {tmp_path / name}\n")
    assert (tmp_path / "t.md").read_text().splitlines()[2].startswith("| run")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text())))
    (table,) = json.loads((tmp_path / "t.json").read_text())
    assert [float(row["mean"]) for row in rows] == [row["mean"] for row in table["rows"]] == pytest.approx([0.75, 0.55])
    assert (tmp_path / "t.txt").read_text().startswith("glyphs")
    refused = command_line("compare", sweep, f"out={tmp_path / 't.md'}")
    assert (refused.code, "is there already" in refused.err) == (2, True)


def test_machine_formats_hold_nothing_but_the_table(command_line: CommandLine, sweep: Path, evaluates: list[list[str]]):
    answer = command_line("compare", sweep, "format=json", "split=test", "episodes=3")
    assert [table["table"] for table in json.loads(answer.out)] == ["test"]
    rows = csv.DictReader(io.StringIO(command_line("compare", sweep, "format=csv").out))
    assert [row["name"] for row in rows] == ["protonet", "maml"]


def test_evaluations_are_compared_without_a_split_and_drawn(command_line: CommandLine, tmp_path: Path):
    for name, score in (("a", 0.5), ("b", 0.75)):
        write_evaluation(tmp_path / name, [score, score], run=tmp_path / "gone", algo=name, report={"by_step": [0.2, score]})
    answer = command_line("compare", tmp_path / "a", tmp_path / "b", f"figure={tmp_path / 'f.svg'}")
    assert answer.code == 0, answer.err
    assert "b  75.0 %" in (tmp_path / "f.svg").read_text()
    assert "so it looks better than it is" in answer.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "metarun compare needs runs"),
        (["nowhere"], "there is no file or folder 'nowhere'."),
        (["."], "'.' holds no run"),
        ([".", "formt=csv"], "knows no 'formt='. Did you mean 'format'?"),
        ([".", "split=tset"], "split=tset is unknown; give split=test or val or train. Did you mean 'test'?"),
        ([".", "episodes=5"], "episodes= is a key of an evaluation; give split=test too"),
        ([".", "split=test", "split=val"], "split= may occur once"),
        ([".", "base="], "base= has no value"),
        ([".", "--quick"], "knows no '--quick'"),
        ([".", "out=none/a.md"], "there is no folder none"),
        ([".", "out=[]"], "out=[] must be one path"),
        ([".", "out=[a.md,b.md]"], "out=[a.md,b.md] must be one path"),
        ([".", "figure=a.txt"], "should end in .png, .svg or .pdf"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_2(command_line: CommandLine, words: list[str], sentence: str):
    answer = command_line("compare", *words)
    assert answer.code == 2
    assert sentence in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("word", ["episodes=ten", "norm=bath", "task=omniglott", "best=0"])
def test_a_key_that_every_evaluation_refuses_is_refused_before_the_first_one(
    command_line: CommandLine, sweep: Path, evaluates: list[list[str]], word: str
):
    answer = command_line("compare", sweep, "split=test", word)
    assert (answer.code, answer.out, evaluates) == (2, "", [])
    assert answer.err.startswith("metarun: ")
    assert word.partition("=")[0] in answer.err
    assert "no run could be scored" not in answer.err


def test_a_base_that_can_be_no_run_is_refused_before_the_first_evaluation(
    command_line: CommandLine, sweep: Path, evaluates: list[list[str]]
):
    answer = command_line("compare", sweep, "split=test", "base=mamll")
    assert answer.code == 2
    assert "base=mamll names none of the runs; give the path of a run, or a name of the table: maml, protonet." in answer.err
    assert "Did you mean 'maml'?" in answer.err
    assert evaluates == []


@pytest.mark.parametrize("base", ["maml", "maml seed=1", "protonet (2_algo-protonet_seed-0)"])
def test_each_name_that_a_table_may_give_is_no_reason_to_refuse_early(sweep: Path, base: str):
    check_base(base, find_runs([sweep]))


def test_the_path_of_a_run_or_of_its_checkpoint_is_a_base(sweep: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(sweep)
    for path in ("0_algo-maml_seed-0", sweep / "0_algo-maml_seed-0/checkpoints/best.pt"):
        check_base(str(path), find_runs(["."]))
    with pytest.raises(UserError, match="names none of the runs"):
        check_base("4_algo-anil_seed-0", find_runs(["."]))


def test_keys_that_need_scores_are_refused_without_a_split(command_line: CommandLine, sweep: Path):
    for word in ("base=maml", "figure=a.png", "families=a.png"):
        assert "give split=test too" in command_line("compare", sweep, word).err


def test_a_folder_with_a_sign_of_a_key_in_its_name_is_a_path(tmp_path: Path):
    folder = tmp_path / "lr=0.1"
    folder.mkdir()
    asked = parse([str(folder), "split=test", "+task.shots=5", "trust=mine"])
    assert (asked.paths, asked.split, asked.words, asked.trust) == ((str(folder),), "test", ("+task.shots=5",), "mine")


def test_the_command_that_scores_the_runs_trusts_what_their_configs_name(tmp_path: Path):
    run = Run(tmp_path, {"backbone": {"_target_": "mine.Network"}, "algo": {"_target_": "metarun.algorithms.maml.maml"}})
    assert compare.how_to_score(["a b", "c"], [run, run]).endswith(" compare 'a b' c split=test trust=mine")


def test_help_needs_no_runs(command_line: CommandLine):
    answer = command_line("compare", "--help")
    assert answer.code == 0
    assert all(f"\n  {key}" in answer.out for key in compare.KEYS)
    assert all(len(line) <= 80 for line in answer.out.splitlines())


def test_a_run_is_evaluated_into_its_own_folder_and_stdout_stays_free(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    from metarun.cli import interface

    def evaluate(run: Path, words: list[str]) -> dict[str, str]:
        print("accuracy 50 %")
        return {"folder": str(run / "eval/x"), "words": str(words)}

    monkeypatch.setattr(interface, "evaluate", evaluate)
    (run,) = [Run(write_run(tmp_path / "run"), {})]
    assert compare.evaluator("mine", 1)(run, ["split=test"]) == tmp_path / "run/eval/x"
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"metarun: evaluating {tmp_path / 'run'} (1 of at most 1)\naccuracy 50 %\n"


def test_no_run_that_can_be_scored_is_a_mistake(command_line: CommandLine, sweep: Path, monkeypatch: pytest.MonkeyPatch):
    def evaluator(trust: str | None, count: int) -> Callable[[Run, Sequence[str]], Path]:
        def evaluate(run: Run, words: Sequence[str]) -> Path:
            raise UserError("there is no key 'task.shotz'.")

        return evaluate

    monkeypatch.setattr(compare, "evaluator", evaluator)
    answer = command_line("compare", sweep, "split=test", "task.shotz=5")
    assert (answer.code, answer.err) == (2, "metarun: no run could be scored: there is no key 'task.shotz'.\n")
