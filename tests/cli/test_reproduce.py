"""`metarun reproduce`: our score beside the published one, under the experiment's protocol."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from small import composed

from metarun.cli.reproduce import Claim, changes, claim_of, compare, lines, parse
from metarun.errors import UserError

if TYPE_CHECKING:
    from command_line import Answer, CommandLine

pytest_plugins = ("command_line",)

SHIPPED = sorted((Path(__file__).parents[2] / "configs/experiment").glob("*.yaml"))
TINY = """# @package _global_
# Tiny. Command: none. Time: seconds. Score: none. Published: invented for a test.
defaults:
  - override /task: sinusoid
  - override /algo: maml
  - override /backbone: mlp
backbone:
  widths: [4]
steps: 2
tasks_per_step: 2
eval_episodes: 2
reproduce:
  eval: {episodes: 3, inner_steps: 2}
  metric: mse
  published: PUBLISHED
  source: "Nobody 2026, table 1"
  recalled: true
  tolerance: 1.0
  diverged: 3
  differences: ["two steps"]
"""


OWN = """from torch import nn


class Own(nn.Module):
    out_features = 4

    def __init__(self, widths):
        super().__init__()
        self.layer = nn.Linear(1, 4)

    def forward(self, x):
        return self.layer(x)
"""


def experiment(folder: Path, published: float | str, changed: dict[str, str] | None = None) -> Path:
    """Write the experiment `tiny` into a folder of configs."""
    (folder / "experiment").mkdir(parents=True, exist_ok=True)
    text = TINY.replace("PUBLISHED", str(published))
    for old, new in (changed or {}).items():
        text = re.sub(rf"(?<= ){old}.*", f"{old}: {new}", text)
    (folder / "experiment/tiny.yaml").write_text(text)
    return folder


def report_of(answer: Answer) -> dict[str, Any]:
    """Return the report whose path was printed."""
    found = re.search(r"^report: (.+)$", answer.out, flags=re.MULTILINE)
    assert found is not None, answer
    content: dict[str, Any] = json.loads(Path(found[1]).read_text())
    return content


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A folder with the experiment `tiny`, in which nobody can be worse than what was published."""
    return experiment(tmp_path / "conf", 1e6)


def trained(answer: Answer) -> str:
    """Return the run folder that was printed."""
    return re.findall(r"run folder (\S+)", answer.out)[-1]


def test_an_experiment_is_trained_scored_and_set_beside_what_was_published(command_line: CommandLine, conf: Path) -> None:
    answer = command_line("reproduce", "tiny", "--config-dir", conf)
    assert answer.code == 0, answer.err
    assert "published mse 1000000.000 (Nobody 2026, table 1, as recalled and not read again)" in answer.out
    assert "known difference: two steps" in answer.out
    report = report_of(answer)
    assert (report["episodes"], report["inner_steps"]) == (3, 2)
    result = report["reproduction"]
    assert (result["measured"], result["measured_ci95"], result["reproduced"]) == (report["mean"], report["ci95"], True)
    assert (result["published"], result["tolerance"], result["differences"], result["changed"]) == (1e6, 1.0, ["two steps"], [])

    experiment(conf, 0.0)  # as good as nobody is: the same run falls short of it
    short = command_line("reproduce", "tiny", f"checkpoint={trained(answer)}", "--config-dir", conf)
    assert short.code == 1
    assert "NOT reproduced: the tolerance is mse 1.000" in short.out
    assert report_of(short)["mean"] == report["mean"]


def test_what_was_changed_for_a_run_is_told_when_it_is_trained_and_when_its_checkpoint_is_given(
    command_line: CommandLine, conf: Path
) -> None:
    answer = command_line("reproduce", "tiny", "steps=1", "algo.inner_lr=0.5", "seed=1", "device.threads=1", f"--config-dir={conf}")
    told = ["algo.inner_lr=0.5 instead of 0.4", "steps=1 instead of 2"]
    assert report_of(answer)["reproduction"]["changed"] == told
    assert "protocol changed: steps=1 instead of 2" in answer.out
    again = command_line("reproduce", "tiny", f"checkpoint={trained(answer)}", "-cd", conf)
    assert report_of(again)["reproduction"]["changed"] == told


def test_the_absolute_path_of_the_experiments_own_data_is_no_change(command_line: CommandLine, conf: Path) -> None:
    rows = [f"{task},{place},{task * place % 7}" for task in range(12) for place in range(20)]
    (conf.parent / "data.csv").write_text("\n".join(["shop,size,price", *rows]) + "\n")
    tiny = conf / "experiment/tiny.yaml"
    task = "task: {path: data.csv, task_column: shop, target: price, shots: 3, queries: 3}\nbackbone:"
    tiny.write_text(tiny.read_text().replace("/task: sinusoid", "/task: table").replace("\nbackbone:", f"\n{task}"))
    answer = command_line("reproduce", "tiny", "-cd", conf)
    assert answer.code == 0, answer.err
    assert report_of(answer)["reproduction"]["changed"] == []
    (conf.parent / "moved.csv").write_bytes((conf.parent / "data.csv").read_bytes())
    other = command_line("reproduce", "tiny", "task.path=moved.csv", "-cd", conf)
    assert report_of(other)["reproduction"]["changed"] == [f"task.path={conf.parent}/moved.csv instead of {conf.parent}/data.csv"]


def test_another_algorithm_is_one_change_and_a_run_cut_short_is_told() -> None:
    config = {"algo": {"_target_": "a", "inner_lr": 0.1}, "task": {"classes": None, "shots": None}, "steps": 9}
    run = {"algo": {"_target_": "b"}, "task": {"classes": {"train": [1]}, "shots": 5}, "steps": 9, "seed": 4}
    assert changes(config, run, 9) == ["algo._target_=b instead of a", "task.shots=5 instead of None"]
    assert changes(config, {**config, "steps": 9}, 4) == ["stopped after 4 of 9 steps"]


def test_where_nothing_was_published_the_score_is_ours_alone(command_line: CommandLine, conf: Path) -> None:
    text = (conf / "experiment/tiny.yaml").read_text().split("reproduce:")[0]
    (conf / "experiment/tiny.yaml").write_text(text)  # without the key there is nothing either
    answer = command_line("reproduce", "tiny", "algo.inner_lr=0.001", "-cd", conf)
    assert answer.code == 0, answer.err
    assert "tiny: measured mse " in answer.out
    assert "published: nothing to compare with" in answer.out
    assert report_of(answer)["reproduction"]["reproduced"] is None


def test_an_experiment_of_the_users_own_code_is_trusted_in_the_evaluation_too(command_line: CommandLine, conf: Path) -> None:
    (conf / "backbone").mkdir()
    (conf / "backbone/own.yaml").write_text("_target_: own_network.Own\n")
    Path("own_network.py").write_text(OWN)
    answer = command_line("reproduce", "tiny", "-cd", conf, "backbone=own", "trust=[own_network]")
    assert answer.code == 0, answer.err
    assert "backbone._target_=own_network.Own instead of metarun.backbones.mlp.Mlp" in answer.out


def test_a_run_of_another_experiment_is_refused(command_line: CommandLine, conf: Path, tmp_path: Path) -> None:
    words = ["task=sinusoid", "backbone=mlp", "steps=1", "eval_episodes=1", f"hydra.run.dir={tmp_path / 'run'}"]
    assert command_line("train", "experiment=smoke", *words).code == 0
    refused = command_line("reproduce", "tiny", f"checkpoint={tmp_path / 'run'}", "--config-dir", conf)
    assert refused.code == 2
    assert "is a run of experiment=smoke, so it cannot reproduce tiny" in refused.err


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"published": "many"}, "reproduce.published='many' should be a number"),
        ({"diverged": "-1"}, "reproduce.diverged=-1 should be a whole number"),
        ({"source": "{}\n  sauce: x"}, "reproduce.sauce='x' is no key"),
        ({"override /task": "sinusoidd"}, "task has no option 'sinusoidd'"),
    ],
)
def test_an_experiment_that_cannot_be_read_is_told_in_a_sentence(
    command_line: CommandLine, conf: Path, changed: dict[str, str], sentence: str
) -> None:
    experiment(conf, 1.0, changed)
    answer = command_line("reproduce", "tiny", "--config-dir", conf)
    assert answer.code == 2
    assert sentence in answer.err


def test_a_better_score_is_reproduced_and_a_worse_one_within_the_tolerance() -> None:
    accuracy = Claim(published=0.98, tolerance=0.01, source="x")

    def verdict(claim: Claim, metric: str, mean: float | None) -> Any:
        return compare(claim, {"metric": metric, "mean": mean, "ci95": 0.0, "diverged": 0}, [])["reproduced"]

    assert [verdict(accuracy, "accuracy", mean) for mean in (0.99, 0.9701, 0.969, None)] == [True, True, False, False]
    error = Claim(metric="mse", published=0.5, tolerance=0.1, source="x")
    assert [verdict(error, "mse", mean) for mean in (0.1, 0.59, 0.61)] == [True, True, False]
    assert verdict(Claim(), "accuracy", 0.5) is None
    with pytest.raises(UserError, match="is of accuracy, and this run's is of mse"):
        verdict(accuracy, "mse", 0.5)


def test_what_was_read_again_is_not_called_recalled() -> None:
    claim = Claim(published=0.98, ci95=0.004, source="Somebody 2020")
    said = lines("x", claim, compare(claim, {"metric": "accuracy", "mean": 0.985, "ci95": 0.002, "diverged": 0}, []))
    assert said[:3] == [
        "x: measured 98.50 % ± 0.20 over episodes",
        "published 98.00 % ± 0.40 (Somebody 2020)",
        "reproduced: the tolerance is 1.00 %",
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["tinny"], "experiment has no option 'tinny'"),
        (["null"], "experiment has no option 'null'"),
        (["it's"], "experiment has no option 'it's'"),
        ([""], "names no option of experiment"),
        (["omniglot_5w1s_mamml"], "Did you mean 'omniglot_5w1s_maml'?"),
        (["smoke", "stpes=3"], "There is no key 'stpes'. Did you mean 'steps'?"),
        (["smoke", "resume=run"], "takes no resume=run"),
        (["smoke", "hydra.run.dir=run"], "takes no hydra.run.dir=run"),
        (["smoke", "checkpoint=[nowhere,b]"], "there is no checkpoint or run folder 'nowhere'"),
        (["smoke", "checkpoint="], "checkpoint= names no run"),
        (["smoke", "checkpoint=[]"], "checkpoint= names no run"),
        (["smoke", "checkpoint=[a,'']"], "checkpoint= names no run"),
        (["smoke", "checkpoint=a", "checkpoint=b"], "give several runs as checkpoint=[RUN,RUN]"),
        (["smoke", "checkpoint=a", "seeds=3"], "seeds=3 would change its training"),
        (["smoke", "seeds=1"], "seeds=1 must be a whole number of at least 2"),
        (["smoke", "seeds=two"], "seeds=two must be a whole number"),
        (["smoke", "seeds=3", "seed=4"], "so seed=4 has no place beside it"),
        (["steps=3"], "takes one experiment, but got none"),
        (["smoke", "quickstart"], "takes one experiment, but got smoke and quickstart"),
        (["smoke", "-m"], "takes no -m"),
        (["omniglot_5w1s_maml", "checkpoint=x", "steps=3"], "omit one of the two"),
        (["omniglot_5w1s_maml", "checkpoint=nowhere"], "there is no checkpoint or run folder 'nowhere'"),
    ],
)
def test_what_cannot_be_reproduced_is_told_before_anything_runs(command_line: CommandLine, words: list[str], sentence: str) -> None:
    answer = command_line("reproduce", *words)
    assert answer.code == 2
    assert sentence in answer.err
    assert not Path("outputs").exists()


def test_its_usage_needs_no_words(command_line: CommandLine) -> None:
    assert command_line("reproduce").out.startswith("usage: metarun reproduce EXPERIMENT")


def test_every_override_but_the_checkpoint_is_for_the_training() -> None:
    assert parse(["smoke", "steps=3", "~algo.x", "-cd", "conf"]) == ("smoke", [], None, ["steps=3", "~algo.x"], ["-cd", "conf"])
    assert parse(["smoke", "checkpoint=[a, b]"]).runs == ["a", "b"]


def test_diverged_tasks_fail_a_run_unless_the_experiment_allows_their_number() -> None:
    report = {"metric": "mse", "mean": 0.1, "ci95": 0.0, "diverged": 2}
    for published, fine in ((0.5, True), (None, None)):
        claim = Claim(metric="mse", published=published, source="x")
        result = compare(claim, report, [])
        assert result["reproduced"] is False
        assert "NOT reproduced: 2 tasks diverged, and the experiment allows 0 (reproduce.diverged)" in lines("x", claim, result)
        assert compare(Claim(metric="mse", published=published, source="x", diverged=2), report, [])["reproduced"] is fine
    runs = {**report, "diverged": 3, "runs": [{"diverged": 2}, {"diverged": 1}]}
    assert compare(Claim(metric="mse", diverged=2), runs, [])["reproduced"] is None, "the number is of each run"


def test_several_seeds_are_trained_and_their_mean_is_compared(command_line: CommandLine, conf: Path) -> None:
    answer = command_line("reproduce", "tiny", "seeds=2", "-cd", conf)
    assert answer.code == 0, answer.err
    report = report_of(answer)
    assert [run["seed"] for run in report["runs"]] == [0, 1]
    assert report["reproduction"]["measured"] == report["mean"]
    assert report["reproduction"]["measured_ci95_over"] == "training runs"
    assert re.search(r"tiny: measured mse [\d.]+ ± [\d.]+ over training runs", answer.out)
    again = command_line("reproduce", "tiny", f"checkpoint=[{','.join(run['checkpoint'] for run in report['runs'])}]", "-cd", conf)
    assert report_of(again)["mean"] == report["mean"]


@pytest.mark.parametrize("file", [file for file in SHIPPED if file.stem.startswith("omniglot_")], ids=lambda file: file.stem)
def test_every_omniglot_experiment_says_what_was_published_as_its_header_does(file: Path) -> None:
    config = composed(f"experiment={file.stem}")
    claim = claim_of(config["reproduce"])
    header = " ".join(line.lstrip("# ") for line in file.read_text(encoding="utf-8").split("defaults:")[0].splitlines())
    published = header.split("Published")[1]
    assert claim.source
    if claim.published is None:
        assert published.startswith((": nothing", ", by presentation"))
        return
    figure = re.match(r": ([\d.]+) %(?: ± ([\d.]+))?", published)
    assert figure is not None
    assert (float(figure[1]), float(figure[2] or 0)) == pytest.approx((100 * claim.published, 100 * (claim.ci95 or 0)))
    assert claim.recalled == ("as recalled" in published)
    steps = next(found for difference in claim.differences if (found := re.search(r"([\d,]+) (?:steps|episodes)", difference)))
    assert int(steps[1].replace(",", "")) == config["steps"]
