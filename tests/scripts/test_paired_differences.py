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


def test_runs_of_several_seeds_are_compared_seed_by_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Differences of seed 0: +1, +3, +2, of seed 1: 0, +2, +4. By episode they are 0.5, 2.5, 3 with mean 2; by seed they are 2 and 2.

    Five of six differences are positive and one is 0: half a win of six, or 8 %.
    """
    on = [scores(tmp_path, f"on_{seed}", values) for seed, values in enumerate(([1.0, 1.0, 1.0], [2.0, 2.0, 2.0]))]
    off = [scores(tmp_path, f"off_{seed}", values) for seed, values in enumerate(([2.0, 4.0, 3.0], [2.0, 4.0, 6.0]))]
    assert paired_differences.main([",".join(on), ",".join(off)]) == 0
    interval = 4.3026527 * statistics.stdev([0.5, 2.5, 3.0]) / math.sqrt(3)
    lines = capsys.readouterr().out.splitlines()
    share = "share of episodes that are lower"
    assert lines[0] == f"| mse (3 episodes, 2 seeds) | mean | minus on over episodes | minus on over 2 seeds (seed by seed) | {share} |"
    assert lines[2] == "| on | 1.5000 |  |  |  |"
    assert lines[3] == f"| off | 3.5000 | +2.0000 ± {interval:.4f} | +2.0000 ± 0.0000 (+2.0000, +2.0000) | 8% |"


def test_the_interval_over_seeds_is_students(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Differences of 1 and 2: mean 1.5, deviation 0.7071, and t = 12.7062 with one degree of freedom: 12.7062 * 0.7071 / √2 = 6.3531."""
    on = ",".join(scores(tmp_path, f"on{seed}", [0.0, 0.0]) for seed in (0, 1))
    off = ",".join(scores(tmp_path, f"off{seed}", [1.0 + seed, 1.0 + seed]) for seed in (0, 1))
    assert paired_differences.main([on, off]) == 0
    assert "| +1.5000 ± 0.0000 | +1.5000 ± 6.3531 (+1.0000, +2.0000) |" in capsys.readouterr().out


def test_an_episode_that_diverged_for_one_seed_has_no_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The first two episodes differ by 1 for both seeds. Of six scores, the one that is not finite is a win for the first setting too."""
    on = ",".join(scores(tmp_path, f"on_{seed}", [1.0, 1.0, 1.0]) for seed in (0, 1))
    off = ",".join([scores(tmp_path, "off_0", [2.0, 2.0, 0.5]), scores(tmp_path, "off_1", [2.0, 2.0, math.inf])])
    assert paired_differences.main([on, off]) == 0
    row = capsys.readouterr().out.splitlines()[3]
    assert row == "| off | inf (finite: 1.7000) | +1.0000 ± 0.0000 (1 not finite) | +1.0000 ± 0.0000 (+1.0000, +1.0000) | 17% |"


def test_each_setting_needs_a_run_of_each_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    paths = [scores(tmp_path, name, [1.0, 2.0]) for name in ("on_0", "on_1", "off_0")]
    assert paired_differences.main([",".join(paths[:2]), paths[2]]) == 2
    assert "'off_0' has 1 runs and 'on' has 2; name one for each seed" in capsys.readouterr().err
    short = scores(tmp_path, "off_1", [1.0])
    assert paired_differences.main([paths[0], f"{paths[2]},{short}"]) == 2
    assert "off_1.csv' has 1 episodes of mse; the first file has 2 of mse" in capsys.readouterr().err


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


def of_families(folder: Path, name: str, values: list[float]) -> str:
    path = folder / f"{name}.csv"
    rows = [f"{episode},{value},{'ab'[episode % 2]}" for episode, value in enumerate(values)]
    path.write_text("\n".join(["episode,accuracy,family", *rows]) + "\n")
    return str(path)


def test_families_get_a_table_with_ranks_and_their_average(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """a: 0.5, 0.7 against 0.6, 0.8: higher by exactly 0.1, ranks 2 and 1. b: 0.2, 0.4 against 0.5, 0.1: equal on average, ranks 1.5 each.

    The interval of two values is 12.706205 · their deviation / √2: 1.2706 for 0.5, 0.7, the same for 0.2, 0.4; 2.5412 for 0.5, 0.1.
    """
    assert (
        paired_differences.main([of_families(tmp_path, "on", [0.5, 0.2, 0.7, 0.4]), of_families(tmp_path, "off", [0.6, 0.5, 0.8, 0.1])])
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[5] == "| accuracy, 95 % interval over episodes (rank) | a | b | average rank |"
    assert lines[7] == "| on | 0.6000 ± 1.2706 (2) | 0.3000 ± 1.2706 (1.5) | 1.75 |"
    assert lines[8] == "| off | 0.7000 ± 1.2706 (1) | 0.3000 ± 2.5412 (1.5) | 1.25 |"


def test_files_of_different_families_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    paths = of_families(tmp_path, "on", [0.5, 0.2]), scores(tmp_path, "off", [0.5, 0.2], "accuracy")
    assert paired_differences.main(paths) == 2
    assert "'off' has other families than 'on'" in capsys.readouterr().err


def test_one_kind_of_tasks_has_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    paths = [scores(tmp_path, name, [0.5, 0.2]) for name in ("on", "off")]
    assert paired_differences.main(paths) == 0
    assert "rank" not in capsys.readouterr().out


def test_families_are_drawn_under_given_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    paths = [of_families(tmp_path, name, [0.5, 0.2, 0.7, 0.4]) for name in ("on", "off")]
    assert paired_differences.main([*paths, "--names=with,without", f"--figure={tmp_path / 'families.png'}"]) == 0
    assert "| without |" in capsys.readouterr().out
    assert (tmp_path / "families.png").stat().st_size > 1000
    assert paired_differences.main([*paths, "--names=with"]) == 2
    assert "2 settings need as many names; --names has 1" in capsys.readouterr().err


def test_files_of_one_kind_have_no_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert paired_differences.main([scores(tmp_path, "on", [0.5, 0.2]), f"--figure={tmp_path / 'a.png'}"]) == 2
    assert "these files have one kind of tasks" in capsys.readouterr().err
