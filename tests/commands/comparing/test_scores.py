"""The table of scores on the same episodes. The expected numbers are worked out by hand, or equal those of `differences`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from run_folders import write_evaluation, write_run

from metarun.commands.comparing.runs import find_runs
from metarun.commands.comparing.scores import NEVER_BY_TEST, score_tables
from metarun.commands.comparing.scoring import Scored, scored
from metarun.errors import UserError


def write(folder: Path, algo: str, scores: Sequence[float], seed: int = 0, validation: float = 0.5, **keys: Any) -> Path:
    run = write_run(folder / f"{algo}_{seed}", [0.1, validation], algo=algo, seed=seed, typed=[f"algo={algo}", f"seed={seed}"])
    write_evaluation(run / "eval/a", scores, run=run, algo=algo, seed=seed, **keys)
    return run


def found(folder: Path, episodes: int) -> list[Scored]:
    return scored(find_runs([folder]), "test", [f"episodes={episodes}"])


def test_a_row_has_the_score_and_the_paired_difference_to_the_best(tmp_path: Path):
    """Differences -0.1, -0.2, -0.3: mean -20 points, deviation 10, half the interval 4.3027 * 10 / √3 = 24.84; one row is never better."""
    write(tmp_path, "maml", [0.5, 0.5, 0.5], validation=0.4)
    write(tmp_path, "protonet", [0.6, 0.7, 0.8], validation=0.6, report={"inner_steps": 0, "norm": "running"})
    (table,) = score_tables(found(tmp_path, 3))
    assert table.title == "5-way 1-shot: accuracy on 3 test episodes, seed 0, the highest first"
    kept = [place for place, name in enumerate(table.head) if name in ("run", "accuracy", "minus protonet", "better in", "inner steps")]
    assert [[row[place] for place in kept] for row in table.rows] == [
        ["protonet", "70.00 % ± 1.00", "", "", "0"],
        ["maml", "50.00 % ± 1.00", "-20.00 ± 24.84", "0%", ""],
    ]
    assert "protonet has the best validation score." in table.notes
    assert table.data[1]["difference"] == pytest.approx(-0.2)


def test_seeds_have_an_interquartile_mean_and_an_interval_over_the_seeds(tmp_path: Path):
    """By seed the differences are 0.1 and 0.3: mean 20 points, half the interval 12.7062 * 14.142 / √2 = 127.06 points."""
    for seed in (0, 1):
        write(tmp_path, "maml", [0.5, 0.5], seed, validation=0.9)
        write(tmp_path, "protonet", [0.6 + 0.2 * seed] * 2, seed)
    (table,) = score_tables(found(tmp_path, 2), every_seed=True)
    row = dict(zip(table.head, table.rows[0], strict=True))
    assert row["seeds"] == "2"
    assert row["accuracy"] == "70.00 % ± 127.06"
    assert row["iqm"] == "70.00"
    assert row["minus maml"] == "+20.00 ± 0.00"
    assert row["over seeds"] == "+20.00 ± 127.06"
    seeds = [[f"  {algo} seed={seed}" for seed in (0, 1)] for algo in ("protonet", "maml")]
    assert [line[0] for line in table.rows] == ["protonet", *seeds[0], "maml", *seeds[1]]


def test_a_best_that_was_chosen_by_its_test_score_is_named_so(tmp_path: Path):
    for name, scores in (("a", [0.5, 0.6]), ("b", [0.7, 0.6])):
        write_evaluation(tmp_path / name, scores, run=tmp_path / "gone", algo=name)
    (table,) = score_tables([Scored(run, run.evaluation) for run in find_runs([tmp_path])])
    assert NEVER_BY_TEST in table.notes
    (table,) = score_tables([Scored(run, run.evaluation) for run in find_runs([tmp_path])], base="a")
    assert NEVER_BY_TEST not in table.notes
    assert "minus a" in table.head


def test_a_base_that_is_no_run_is_refused_with_the_names(tmp_path: Path):
    write(tmp_path, "maml", [0.5, 0.5])
    with pytest.raises(UserError, match=r"base=x names none of the runs; .*: maml\."):
        score_tables(found(tmp_path, 2), base="x")
    with pytest.raises(UserError, match=r"base=mamll names none .* maml\. Did you mean 'maml'\?$"):
        score_tables(found(tmp_path, 2), base="mamll")


def test_other_episodes_have_tables_of_their_own_unless_the_user_says_that_they_are_the_same(tmp_path: Path):
    write(tmp_path, "maml", [0.5, 0.5])
    write(tmp_path, "protonet", [0.6, 0.8], report={"config": {"task": {"ways": 20}, "options": {"task": "glyphs"}}})
    assert [len(table.rows) for table in score_tables(found(tmp_path, 2))] == [1, 1]
    (table,) = score_tables(found(tmp_path, 2), together=True)
    assert len(table.rows) == 2
    assert any("tables=one" in note for note in table.notes)


@pytest.mark.parametrize(
    ("change", "titles"),
    [
        ({"task__residual": True}, ["task.residual=null: ", "task.residual=true: "]),
        ({"task__classes": {"test": ["a" * 80]}}, ["run maml_0: ", "run protonet_0: "]),
        ({"report": {"seed": 1}}, ["shot: ", "shot: "]),
    ],
)
def test_equal_headings_say_what_differs_or_name_the_runs(tmp_path: Path, change: dict[str, Any], titles: list[str]):
    write(tmp_path, "maml", [0.5, 0.5])
    write(tmp_path, "protonet", [0.6, 0.8], **change)
    scores = [each._replace(evaluation=each.run.evaluations("test")[0]) for each in found(tmp_path, 2)]
    assert [title in table.title for title, table in zip(titles, score_tables(scores), strict=True)] == [True, True]


def test_one_episode_is_no_plural(tmp_path: Path):
    write(tmp_path, "maml", [0.5])
    assert " on 1 test episode, seed 0" in score_tables(found(tmp_path, 1))[0].title


def test_a_run_without_a_score_is_named_with_the_reason(tmp_path: Path):
    write(tmp_path, "maml", [0.5, 0.5])
    write_run(tmp_path / "other")
    (table,) = score_tables(found(tmp_path, 2))
    assert table.notes[-1] == "other has no score: it has no evaluation with split=test episodes=2 seed=0"
    with pytest.raises(UserError, match="no run could be scored: it has no evaluation"):
        score_tables(found(tmp_path, 7))


def test_diverged_episodes_and_scores_that_are_not_finite_stand_in_the_row(tmp_path: Path):
    write(tmp_path, "maml", [1.0, 2.0, 3.0], metric="mse", report={"diverged": 2})
    run = write(tmp_path, "protonet", [1.0, 2.0, float("inf")], metric="mse", report={"mean": None, "ci95": None})
    (table,) = score_tables(found(tmp_path, 3), base=str(tmp_path / "maml_0"))
    rows = [dict(zip(table.head, row, strict=True)) for row in table.rows]
    assert (rows[0]["run"], rows[0]["mse"], rows[0]["diverged"]) == ("maml", "2.000 ± 0.010", "2")
    assert (rows[1]["mse"], rows[1]["minus maml"]) == ("not finite", "+0.0000 ± 0.0000 (1 not finite)"), run


def test_families_have_a_second_table(tmp_path: Path):
    for algo, scores in (("maml", [0.9, 0.5, 0.9, 0.4]), ("protonet", [0.8, 0.5, 0.8, 0.4])):
        write(tmp_path, algo, scores, families=["a", "b", "a", "b"])
    scores, families = score_tables(found(tmp_path, 4))
    assert scores.key == "test"
    assert families.head == ("run", "a", "b", "average rank")
    assert [row[-1] for row in families.rows] == ["1.25", "1.75"]
