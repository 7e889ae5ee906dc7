"""The check of a GPU: its parts run on a CPU, a failure of one hides no other, and its figures are computed as its files say."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gpu_checks import __main__ as command
from gpu_checks import agreement, loops, part, repeats, steps, suite, waiting
from gpu_checks.configs import algorithms, composed, row
from gpu_checks.parts import PARTS, SHARDS, Options, Part

CPU = Options("cpu", small=True, rounds=1, seconds=0.0)


def test_every_algorithm_is_compared_once() -> None:
    shards = [algorithms()[number::SHARDS] for number in range(SHARDS)]
    assert sorted(option for shard in shards for option in shard) == algorithms()
    assert {"maml", "protonet", "reptile", "tnp"} <= set(algorithms())


def test_the_same_device_agrees_and_a_wrong_gradient_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = agreement.compare("anil", "regression", "cpu")
    assert figures["float64"] == {"losses": 0.0, "gradient": 0.0, "score": 0.0}
    assert figures["failures"] == []
    assert figures["recorded"]
    wrong = agreement.outcome

    def outcome(parts: Any, dtype: torch.dtype, *, runs: int = 1) -> agreement.Outcome:
        found = wrong(parts, dtype, runs=runs)
        if runs > 1:
            found.gradient = {name: 1.01 * value for name, value in found.gradient.items()}
        return found

    monkeypatch.setattr(agreement, "outcome", outcome)
    (failure,) = agreement.compare("anil", "regression", "cpu")["failures"]
    assert failure.startswith("the gradient in float32 differs from float64 by 0.01 of its size")


def test_an_algorithm_that_fails_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def compare(option: str, kind: str, device: str) -> dict[str, Any]:
        if option == "anil":
            raise RuntimeError("expected all tensors on one device")
        return {"failures": []}

    monkeypatch.setattr(agreement, "compare", compare)
    monkeypatch.setattr(agreement, "algorithms", lambda: ["anil", "x", "x", "x", "protonet"])
    noted: dict[str, Any] = {}
    failures = agreement.agreement(CPU, noted.__setitem__, "0")
    assert [failure.split(": ")[:2] for failure in failures] == [
        [f"anil, {kind}", "RuntimeError"] for kind in ("classification", "regression")
    ]
    assert noted["protonet, classification"] == {"failures": []}


@pytest.mark.parametrize("name", ["maml", "protonet", "reptile"])
def test_the_plain_loop_has_the_gradient_of_metarun(name: str) -> None:
    overrides = (*row(name, small=True), "device=cpu", "device.kernels=torch", "device.compile=false")
    noted: dict[str, Any] = {}
    problem = steps.problem_of(composed(overrides))
    assert steps.check(name, problem, overrides, CPU, noted.__setitem__) == []
    assert noted[f"{name}, gradient beside the plain loop"]["difference"] <= steps.APART[name]


def test_a_wrong_gradient_beside_the_plain_loop_and_an_error_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    def plain(name: str, *_: Any) -> list[torch.Tensor]:
        if name == "protonet":
            raise RuntimeError("no memory")
        return [torch.ones(3), torch.ones(2)]

    monkeypatch.setattr(steps, "plain_gradient", plain)
    monkeypatch.setattr(steps, "first_gradient", lambda *_: [torch.ones(3), 1.001 * torch.ones(2)])
    noted: dict[str, Any] = {}
    failures = steps.beside(CPU, noted.__setitem__)
    assert [failure.split(",")[0] for failure in failures] == [
        "maml: the gradient differs from the plain loop's by 0.00063",
        "protonet: RuntimeError: no memory",
        "reptile: the gradient differs from the plain loop's by 0.00063",
    ]
    assert len(noted) == 2


def test_runs_are_compared_by_all_their_weights_and_the_way_they_went() -> None:
    initial = {"weight": torch.zeros(100), "bias": torch.zeros(1)}
    first = {"weight": torch.full((100,), 2.0), "bias": torch.tensor([1.0])}
    assert repeats.apart(initial, first, first) == {"equal_bits": True, "of_way": 0.0, "of_size": 0.0}

    noise = repeats.apart(initial, first, {**first, "bias": torch.tensor([-1.0])})  # twice the size of its tensor
    assert noise["of_way"] == noise["of_size"] == pytest.approx(2 / 401**0.5)
    assert (noise["equal_bits"], repeats.too_far(noise)) == (False, "")

    shifted = [{name: value + 100 for name, value in each.items()} for each in (initial, first)]
    far = repeats.apart(*shifted, {**shifted[1], "weight": torch.full((100,), 103.0)})  # near in size, far along the way
    assert far["of_size"] < 0.01
    assert repeats.too_far(far) == "differ by 0.5 of the way from the initial weights, more than 0.1"
    assert repeats.too_far(repeats.apart(initial, first, {**first, "bias": torch.tensor([torch.nan])}))


def test_a_ratio_has_the_spread_of_the_rounds() -> None:
    contenders = [
        SimpleNamespace(name=name, samples=samples, warm=1.0) for name, samples in (("plain loop", [2.0, 4.0]), ("metarun", [1.0, 1.0]))
    ]
    figures = steps.compared(contenders)  # type: ignore[arg-type]
    assert figures["ratio"] == {"median": 3.0, "least": 2.0, "most": 4.0}
    assert figures["told"] == "plain loop 3000.00 ms, metarun 1000.00 ms: 3.00 times (2.00 to 4.00) the time of metarun"


def test_intervals_that_overlap_count_once() -> None:
    assert waiting.covered([(0.0, 2.0), (1.0, 3.0), (1.5, 2.5), (5.0, 6.0)]) == 4.0
    assert waiting.totals([("a", 1.0), ("b", 3.0), ("a", 1.0)]) == {"b": 3.0, "a": 2.0}


def test_a_report_of_tests_is_counted(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(
        '<testsuites><testsuite><testcase classname="t" name="one"/><testcase classname="t" name="two"><failure message="no">line</failure>'
        '</testcase><testcase classname="t" name="three"><skipped/></testcase></testsuite></testsuites>'
    )
    figures = suite.counted(tmp_path / "report.xml")
    assert figures == {"counts": {"passed": 1, "failed": 1, "skipped": 1}, "failed": {"t::two": "no … line"}}


def test_a_part_that_fails_keeps_its_results_and_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(options: Options, note: Any) -> list[str]:
        note("first", float("inf"))
        raise ValueError("no second")

    monkeypatch.setattr(part, "PARTS", (Part("bad", "suite:suite", 1, "a part"),))
    monkeypatch.setattr(suite, "suite", run)
    assert part.main("bad", json.dumps(vars(CPU)), str(tmp_path / "out.json")) == 1
    found = json.loads((tmp_path / "out.json").read_text())
    assert found == {"results": {"first": "inf"}, "failures": ["ValueError: no second"], "finished": False}


def test_parts_that_measure_no_time_run_at_once_on_a_gpu_only() -> None:
    names = [[each.name for each in group] for group in command.groups(PARTS, together=True)]
    assert names[1] == ["beside", "repeats", "tests", *(f"agreement{number}" for number in range(SHARDS))]
    assert all(len(group) == 1 for group in [names[0], *names[2:]])
    assert all(len(group) == 1 for group in command.groups(PARTS, together=False))


def test_a_failure_gives_code_1_and_what_the_time_leaves_out_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ran(each: Part, options: Options, begun: float, whole: float) -> dict[str, Any]:
        if each.name == "repeats":
            return real(each, options, begun - 1e6, whole)
        return {"results": {}, "failures": ["it is wrong"] if each.name == "maml" else [], "seconds": 0.0}

    real = command.run
    monkeypatch.setattr(command, "run", ran)
    out = tmp_path / "gpu.json"
    assert command.main(["--device", "cpu", "--only", "machine,maml,repeats", "--out", str(out)]) == 1
    found = json.loads(out.read_text())
    assert found["failures"] == ["maml: it is wrong"]
    assert found["skipped"] == ["repeats: 0 s are left, and it needs about 40"]
    assert "1 failures, 1 parts left out" in capsys.readouterr().out
    assert command.main(["--device", "cpu", "--only", "machine", "--out", str(out)]) == 0


def test_a_part_is_ended_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "scripts"))  # else the process ends at once, without the package
    outcome = command.run(Part("machine", "machine:machine", 0.1, "facts"), CPU, time.monotonic(), 0.2)
    assert "when the time was over" in outcome["skipped"]
    assert outcome["failures"] == []


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.parse(["--only", "nothing"])
    assert "there is no part 'nothing'; there are machine, beside" in capsys.readouterr().err


def test_mini_batches_and_tasks_of_a_plain_loop_are_those_of_metarun() -> None:
    problem = steps.problem_of(composed((*row("reptile", small=True), "device=cpu")))
    (batch,) = loops.batches(problem, "cpu", count=1)
    algo = problem.config["algo"]
    assert len(batch.tasks) == len(batch.rows) == problem.config["tasks_per_step"]
    assert [len(rows) for rows in batch.rows[0]] == [algo["inner_batch"]] * algo["inner_steps"]
