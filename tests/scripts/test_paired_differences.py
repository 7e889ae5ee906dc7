"""Scores of the same episodes, one evaluation set against another."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import paired_differences
import pytest


def scores(folder: Path, name: str, values: list[float], metric: str = "mse") -> str:
    path = folder / f"{name}.csv"
    path.write_text("\n".join([f"episode,{metric}", *(f"{episode},{value}" for episode, value in enumerate(values))]) + "\n")
    return str(path)


def test_the_difference_is_of_the_same_episodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Differences +0.5, +0.5, -0.25, 0: mean 0.1875; two of four are lower or equal, the equal one for half: 1.5 of 4."""
    paths = scores(tmp_path, "on", [1.0, 2.0, 3.0, 4.0]), scores(tmp_path, "off", [1.5, 2.5, 2.75, 4.0])
    assert paired_differences.main(paths) == 0
    interval = 3.1824463 * statistics.stdev([0.5, 0.5, -0.25, 0.0]) / math.sqrt(4)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| mse (4 episodes) | mean | minus on | share of episodes that are lower |"
    assert lines[2] == "| on | 2.5000 |  |  |"
    assert lines[3] == f"| off | 2.6875 | +0.1875 ± {interval:.4f} | 38% |"


def test_a_higher_accuracy_is_the_better_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    paths = [scores(tmp_path, name, values, "accuracy") for name, values in (("a", [0.5, 0.5]), ("b", [0.6, 0.9]))]
    assert paired_differences.main(paths) == 0
    assert capsys.readouterr().out.splitlines()[3].endswith("| 100% |")


def test_an_episode_that_diverged_counts_as_worse_and_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The difference is over the two finite episodes; the third one is a win for the other model, so it has 1 of 3."""
    paths = scores(tmp_path, "on", [1.0, math.nan, 1.0]), scores(tmp_path, "off", [2.0, 5.0, 3.0])
    assert paired_differences.main(paths) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| on | inf (finite: 1.0000) |  |  |"
    assert "+1.5000" in lines[3]
    assert "(1 not finite)" in lines[3]
    assert lines[3].endswith("| 33% |")


@pytest.mark.parametrize(
    ("values", "metric", "words"),
    [
        ([1.0], "mse", "has 1 episodes of mse; the first file has 2 of mse"),
        ([1.0, 2.0], "accuracy", "has 2 episodes of accuracy; the first file has 2 of mse"),
        ([math.nan, 2.0], "mse", "fewer than two episodes with finite scores"),
    ],
)
def test_what_cannot_be_compared_is_a_sentence(
    values: list[float], metric: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert paired_differences.main([scores(tmp_path, "on", [1.0, 2.0]), scores(tmp_path, "other", values, metric)]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "episode,mse\n0,high\n", "episode,mse\n0\n"])
def test_a_file_without_scores_is_a_sentence(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "scores.csv").write_text(content)
    assert paired_differences.main([str(tmp_path / "scores.csv")]) == 2
    assert "scores.csv'" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert paired_differences.main([str(tmp_path / "none.csv")]) == 2
    assert "none.csv" in capsys.readouterr().err
