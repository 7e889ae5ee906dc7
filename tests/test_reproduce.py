"""`metarun reproduce`: our score beside the published one, under the experiment's protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from metarun.errors import UserError
from metarun.reproduce import Claim, compare, lines, parse, read_claim

if TYPE_CHECKING:
    from command_line import Answer, CommandLine

pytest_plugins = ("command_line",)

SHIPPED = sorted((Path(__file__).parents[1] / "configs/experiment").glob("*.yaml"))
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
logger:
  tensorboard: false
reproduce:
  eval: {episodes: 3, inner_steps: 2}
  metric: mse
  published: PUBLISHED
  source: "Nobody 2026, table 1"
  recalled: true
  tolerance: 1.0
  differences: ["two steps"]
"""


def experiment(folder: Path, published: float | str) -> Path:
    """Write the experiment `tiny` into a folder of configs."""
    (folder / "experiment").mkdir(parents=True, exist_ok=True)
    text = TINY.replace("PUBLISHED", str(published)).replace("logger:\n  tensorboard: false\n", "")
    (folder / "experiment/tiny.yaml").write_text(text)
    return folder


def test_an_experiment_is_trained_scored_and_set_beside_what_was_published(command_line: CommandLine, tmp_path: Path) -> None:
    conf = experiment(tmp_path / "conf", 1e6)
    answer: Answer = command_line("reproduce", "tiny", "--config-dir", conf)
    assert answer.code == 0, answer.err
    assert "published mse 1000000.000 (Nobody 2026, table 1, as recalled and not read again)" in answer.out
    assert "known difference: two steps" in answer.out
    (folder,) = Path("outputs/reproduce").iterdir()
    report = json.loads((folder / "evaluation/report.json").read_text())
    assert (report["episodes"], report["inner_steps"]) == (3, 2)
    result = report["reproduction"]
    assert (result["measured"], result["measured_ci95"], result["reproduced"]) == (report["mean"], report["ci95"], True)
    assert (result["published"], result["tolerance"], result["differences"], result["changed"]) == (1e6, 1.0, ["two steps"], [])

    experiment(conf, 0.0)  # as good as nobody is: the same run falls short of it
    short = command_line("reproduce", "tiny", f"checkpoint={folder / 'run'}", "--config-dir", conf)
    assert short.code == 1
    assert "NOT reproduced: it may fall short by mse 1.000" in short.out

    experiment(conf, "null")
    alone = command_line("reproduce", "tiny", "steps=1", f"--config-dir={conf}")
    assert alone.code == 0
    assert "nothing to compare with" in alone.out
    assert "changed for this run: steps=1" in alone.out

    other = command_line(
        "train", "experiment=smoke", "task=sinusoid", "backbone=mlp", "steps=1", "eval_episodes=1", f"hydra.run.dir={tmp_path / 'run'}"
    )
    assert other.code == 0, other.err
    refused = command_line("reproduce", "tiny", f"checkpoint={tmp_path / 'run'}", "--config-dir", conf)
    assert refused.code == 2
    assert "is a run of experiment=smoke, so it cannot reproduce tiny" in refused.err


def test_a_better_score_is_reproduced_and_a_worse_one_within_the_tolerance() -> None:
    accuracy = Claim(published=0.98, tolerance=0.01, source="x")

    def verdict(claim: Claim, metric: str, mean: float | None) -> Any:
        return compare(claim, {"metric": metric, "mean": mean, "ci95": 0.0}, [])["reproduced"]

    assert [verdict(accuracy, "accuracy", mean) for mean in (0.99, 0.9701, 0.969, None)] == [True, True, False, False]
    error = Claim(metric="mse", published=0.5, tolerance=0.1, source="x")
    assert [verdict(error, "mse", mean) for mean in (0.1, 0.59, 0.61)] == [True, True, False]
    assert verdict(Claim(), "accuracy", 0.5) is None
    with pytest.raises(UserError, match="is of accuracy, and this run's is of mse"):
        verdict(accuracy, "mse", 0.5)


def test_what_was_read_again_is_not_called_recalled() -> None:
    claim = Claim(published=0.98, ci95=0.004, source="Somebody 2020")
    said = lines("x", claim, compare(claim, {"metric": "accuracy", "mean": 0.985, "ci95": 0.002}, []))
    assert said[:3] == [
        "x: measured 98.50 % ± 0.20",
        "published 98.00 % ± 0.40 (Somebody 2020)",
        "reproduced: it may fall short by 1.00 %",
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["tinny"], "there is no experiment 'tinny'"),
        (["omniglot_5w1s_mamml"], "Did you mean 'omniglot_5w1s_maml'?"),
        (["smoke"], "has no `reproduce:`"),
        (["steps=3"], "takes one experiment, here none"),
        (["smoke", "quickstart"], "takes one experiment, here smoke and quickstart"),
        (["smoke", "-m"], "takes no -m"),
        (["omniglot_5w1s_maml", "checkpoint=x", "steps=3"], "leave one of them out"),
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


def test_words_for_the_training_are_those_with_a_value() -> None:
    assert parse(["experiment=smoke", "steps=3", "-cd", "conf"]) == ("smoke", None, ["steps=3"], ["-cd", "conf"])


@pytest.mark.parametrize("name", [file.stem for file in SHIPPED if file.stem.startswith("omniglot_") and file.stem != "omniglot_mann"])
def test_every_omniglot_experiment_says_what_was_published(name: str) -> None:
    """All but that of MANN, whose published figures are by presentation."""
    claim = read_claim(name, [])
    assert claim.source
    assert (claim.published is None) == ("nothing" in (SHIPPED[0].parent / f"{name}.yaml").read_text().split("Published:")[1][:20])
    if claim.published is not None:
        text = (SHIPPED[0].parent / f"{name}.yaml").read_text()
        assert f"{100 * claim.published:.2f}".rstrip("0").rstrip(".") in text, "header and data say the same"
        assert claim.differences
