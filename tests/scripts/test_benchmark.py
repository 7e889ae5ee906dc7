"""The benchmark: what stands side by side computes the same, takes turns, and is reported as measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import agreement, measure, report
from benchmarks.__main__ import main
from benchmarks.families import TaskLoop, family
from benchmarks.loops import loops_for
from benchmarks.ours import Run
from benchmarks.outcome import PLAIN, PRISTINE, Options, Result
from benchmarks.problem import problem_of
from benchmarks.rows import Row, rows, sections
from benchmarks.timing import Contender, alternate
from benchmarks.variants import composed

ROOT = Path(__file__).parents[2]
SINUSOID = ("experiment=sinusoid_maml", "tasks_per_step=2", "algo.inner_steps=2", "task.queries=10")
IMAGES = ("task=few_shot_", "+task._target_=small.few_shot", "+task.side=28", "task.ways=3", "task.queries=4", "task.train_queries=4")
SMALL = {
    "sinusoid": SINUSOID,
    "maml, stride": (*IMAGES, "algo=maml", "algo.inner_steps=2", "backbone.filters=4"),
    "fomaml, max": (*IMAGES, "algo=fomaml", "algo.inner_steps=2", "backbone.filters=4", "backbone.pooling=max"),
    "protonet": (*IMAGES, "algo=protonet", "task.train_ways=5", "task.train_shots=2", "backbone.filters=4"),
}


@pytest.mark.parametrize("overrides", SMALL.values(), ids=SMALL)
def test_every_loop_gives_the_loss_and_gradient_of_metarun_in_float64(overrides: Sequence[str]) -> None:
    problem = problem_of(composed(overrides))
    with closing(Run(overrides)) as run:
        ours = run.gradients(torch.float64, 2)
    tasks = problem.tasks("train", 0, 2)
    loops, absent = loops_for(problem.config)
    assert not absent
    for make in loops.values():
        theirs = agreement.gradients(make, problem.config, problem.network, tasks, torch.float64)
        assert agreement.loss_difference(ours, theirs) < 1e-12
        assert agreement.gradient_difference(ours, theirs) < 1e-12


@pytest.mark.parametrize("overrides", SMALL.values(), ids=SMALL)
def test_every_loop_gives_the_scores_of_metarun(overrides: Sequence[str]) -> None:
    problem = problem_of(composed(overrides))
    with closing(Run(overrides)) as run:
        apart = agreement.compare_scores(problem, run, 3)
    assert "metarun" in apart
    assert max(value for each in apart.values() for value in each.values()) < 1e-5


def test_a_loop_with_another_inner_rate_is_told_by_its_gradient() -> None:
    config, other = composed(SINUSOID), composed([*SINUSOID, "algo.inner_lr=0.02"])
    problem = problem_of(config)
    loops, tasks = loops_for(config)[0], problem.tasks("train", 0, 2)
    right, wrong = (agreement.gradients(loops[PLAIN], each, problem.network, tasks, torch.float64) for each in (config, other))
    with pytest.raises(agreement.DisagreementError, match=r"of higher in float64 differs from the plain loop's"):
        agreement.check_gradients("higher", wrong, right)


def test_nothing_that_disagrees_is_timed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(agreement, "EXACT", -1.0)
    row = {"section": "a", "name": "1 inner step", "measure": "step", "overrides": list(SINUSOID), "contenders": ["metarun, eager"]}
    assert measure.main(json.dumps({"row": row, "options": {"rounds": 1, "seconds": 0.0}})) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("benchmark: section a, 1 inner step: the loss of ")


@pytest.mark.parametrize("overrides", [("algo=maml", "algo.inner_steps=2"), ("algo=matching",)], ids=["maml", "matching"])
def test_the_loop_over_an_algorithms_loss_gives_the_loss_and_gradient_of_metarun_in_float64(overrides: Sequence[str]) -> None:
    words = (*IMAGES, "backbone.filters=4", "task.train_ways=3", *overrides)
    with closing(Run(words)) as run:
        ours = run.gradients(torch.float64, 2)
    theirs = TaskLoop(composed(words)).gradients(torch.float64, 2)
    assert agreement.loss_difference(ours, theirs) < 1e-12
    assert agreement.gradient_difference(ours, theirs) < 1e-12


def test_a_family_is_timed_beside_its_loop_and_says_whether_it_is_recorded() -> None:
    words = (*IMAGES, "backbone.filters=4", "task.train_ways=3", "algo=matching", "tasks_per_step=2")
    results = family(Row("i", "matching", "family", words), Options(rounds=1, seconds=0.0))
    assert [each["contender"] for each in results] == [PRISTINE, PLAIN, "metarun"]
    assert results[-1]["facts"]["runs"] == "recorded"
    assert all(len(each["samples"]) == 1 for each in results)


def test_where_the_plain_loop_itself_rounds_much_three_times_as_much_is_allowed() -> None:
    """In float32, 1 and 1.05 are 0.05 apart, more than 0.03 and less than 3 * 0.02; in float64 nothing is allowed."""
    for dtype, error in ((torch.float32, "more than 3e-02"), (torch.float64, "more than 1e-09")):
        one, other = ((torch.ones((), dtype=dtype), {"w": torch.tensor([value], dtype=dtype)}) for value in (1.0, 1.05))
        with pytest.raises(agreement.DisagreementError, match=error):
            agreement.check_gradients("metarun", other, one, rounding=0.0 if dtype == torch.float32 else 0.02)
    one, other = ((torch.ones(()), {"w": torch.tensor([value])}) for value in (1.0, 1.05))
    assert agreement.check_gradients("metarun", other, one, rounding=0.02)["gradient"] == pytest.approx(0.05)


def test_contenders_take_turns() -> None:
    calls: list[str] = []
    alternate([Contender(name, partial(calls.append, name), threads=1) for name in "AB"], rounds=2, seconds=0)
    assert calls == ["A", "B", "A", "B"]


def test_a_turn_is_the_mean_of_its_steps_and_of_what_they_left_to_other_threads() -> None:
    left: list[float] = []
    contender = Contender("A", lambda: left.append(0.01), 1, settle=lambda: (time.sleep(sum(left)), left.clear()), count=2)
    contender.turn()
    assert contender.samples[0] >= 0.01


def result(contender: str, samples: list[float], unit: str = "s", **facts: Any) -> Result:
    return {"section": "a", "row": "1 inner step", "contender": contender, "unit": unit, "samples": samples, "facts": facts}


def test_a_ratio_is_taken_turn_by_turn() -> None:
    """The turns give 6/2, 8/2 and 30/3; the medians of both would give 8/2 too, but the means 14.7/2.3."""
    assert report.ratios([6.0, 8.0, 30.0], [2.0, 2.0, 3.0]) == (4.0, 3.0, 10.0)


def test_the_table_shows_ratios_to_the_plain_loop_beside_and_before_metarun() -> None:
    results = [
        result(PRISTINE, [0.012]),
        result(PLAIN, [0.014, 0.016]),
        result("metarun", [0.002, 0.002], difference={"loss": 1e-7, "gradient": 2.4e-5}),
    ]
    head, pristine, plain, ours = (line.split() for line in report.aligned(report.lines(results)))
    assert head == "contender median range speed, plain loop = 1 range of speed before metarun = 1 difference: loss, gradient".split()
    assert pristine == "1 inner step plain loop, before metarun 12.0 ms".split()
    assert plain == "plain loop 15.0 ms 14.0 ms - 16.0 ms".split()
    assert ours == "metarun 2.00 ms 2.00 ms - 2.00 ms 7.5x 7 - 8 6x 1e-07, 2e-05".split()


def test_a_contender_that_is_absent_has_a_sentence_and_no_line() -> None:
    results = [result(PLAIN, [213.0], "MiB"), result("metarun, recomputing", [], "MiB", remarks=["there is none."])]
    heading, head, plain, sentence, *_ = report.text(results, {"a": "Memory"}).splitlines()
    assert heading == "(a) Memory"
    assert head.split() == ["contender", "median"]
    assert plain.split() == "1 inner step plain loop 213 MiB".split()
    assert sentence == "  there is none."


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.0141, "s", "14.1 ms"),
        (1.5, "s", "1.50 s"),
        (2e-5, "s", "20.0 µs"),
        (6252.4, "episodes/s", "6,252 episodes/s"),
        (-0.4, "%", "-0.400 %"),
    ],
)
def test_an_amount_has_three_digits_and_its_unit(value: float, unit: str, shown: str) -> None:
    assert report.amount(value, unit) == shown


def test_every_row_is_a_config_that_composes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("METARUN_DATA", raising=False)
    table = rows(quick=True)  # the overrides of the whole benchmark, and more
    assert {row.section for row in table} == set(sections())
    for overrides in {row.overrides for row in table}:
        composed(overrides)


def test_omniglot_is_taken_where_it_is_and_the_letters_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def task() -> str:
        row = next(row for row in rows() if row.section == "b")
        return str(composed(row.overrides)["task"]["_target_"]).rpartition(".")[2]

    monkeypatch.setenv("METARUN_DATA", str(tmp_path))
    assert task() == "glyphs"
    assert "METARUN_DATA has no omniglot/" in sections()["b"]
    (tmp_path / "omniglot").mkdir()
    assert task() == "omniglot"


def test_a_section_that_does_not_exist_is_a_sentence_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["--only", "a,z"])
    assert leaving.value.code == 2
    assert "there is no section 'z'; there are a, b, c, d, e, f, g, h, i, j, k." in capsys.readouterr().err


def test_the_process_that_starts_the_measurements_holds_no_torch() -> None:
    """Linux counts what a parent held at the start of a child towards that child's peak of memory."""
    command = "import sys, benchmarks.__main__; print('torch' in sys.modules)"
    assert run_python("-c", command, folder=ROOT).stdout.strip() == "False"


@pytest.mark.slow
def test_a_quick_run_writes_its_report_every_sample_and_a_figure(tmp_path: Path) -> None:
    done = run_python("-m", "benchmarks", "--quick", "--only", "a", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs" / "benchmark").iterdir()
    assert (folder / "report.txt").read_text(encoding="utf-8") in done.stdout
    assert (folder / "figure.png").stat().st_size > 0
    record = json.loads((folder / "benchmark.json").read_text(encoding="utf-8"))
    assert {"cpu", "cores", "torch", "date"} <= record["machine"].keys()
    assert [each["contender"] for each in record["results"]][:3] == [PRISTINE, PLAIN, "higher"]
    assert all(len(each["samples"]) == 1 for each in record["results"])


def run_python(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "scripts"), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
