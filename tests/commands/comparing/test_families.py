"""Scores and ranks of families, against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from run_folders import write_evaluation

from metarun.commands.comparing.families import family_figures, family_scores, family_table
from metarun.commands.comparing.runs import find_runs
from metarun.commands.comparing.scoring import scored
from metarun.commands.comparing.settings import Setting, settings_of_scores


def compared(folder: Path, **reports: Sequence[tuple[str, float, float]]) -> list[Setting]:
    for name, families in reports.items():
        by_family = {family: {"mean": mean, "ci95": ci95} for family, mean, ci95 in families}
        write_evaluation(folder / name, [0.5, 0.5], run=folder / "gone", algo=name, csv=False, report={"by_family": by_family})
    return settings_of_scores(scored(find_runs([folder]), "test"))


def test_independent_scores_are_ranked_by_their_intervals(tmp_path: Path):
    """a: 0.9 and 0.8 differ by more than √2 · 0.02, ranks 1 and 2. b: 0.50 and 0.52 do not, so both have 1.5."""
    found = compared(tmp_path, first=[("a", 0.9, 0.02), ("b", 0.5, 0.02)], second=[("a", 0.8, 0.02), ("b", 0.52, 0.02)])
    table = family_table(found)
    assert table is not None
    assert table.head == ("run", "a", "b", "average rank")
    assert table.rows == (
        ("first", "90.00 % ± 2.00 (1)", "50.00 % ± 2.00 (1.5)", "1.25"),
        ("second", "80.00 % ± 2.00 (2)", "52.00 % ± 2.00 (1.5)", "1.75"),
    )
    assert table.data[0]["average_rank"] == 1.25


def test_scores_on_the_same_episodes_are_ranked_by_their_differences(tmp_path: Path):
    """The differences of family a are 0.1 each, which separates the runs although their intervals overlap widely."""
    for name, scores in (("first", [0.9, 0.5, 0.3, 0.5]), ("second", [0.8, 0.6, 0.2, 0.4])):
        write_evaluation(tmp_path / name, scores, run=tmp_path / "gone", algo=name, families=["a", "b", "a", "b"])
    found = settings_of_scores(scored(find_runs([tmp_path]), "test"))
    assert family_scores(found) == {"a": [[[0.9, 0.3]], [[0.8, 0.2]]], "b": [[[0.5, 0.5]], [[0.6, 0.4]]]}
    table = family_table(found)
    assert table is not None
    assert [row[1].rpartition(" ")[2] for row in table.rows] == ["(1)", "(2)"]
    assert [row[2].rpartition(" ")[2] for row in table.rows] == ["(1.5)", "(1.5)"]
    figures = family_figures(found, family_scores(found))
    assert figures["a"][0] == pytest.approx((0.6, 12.7062047 * 0.3))


def test_other_families_or_a_single_one_have_no_table(tmp_path: Path):
    assert family_table(compared(tmp_path / "x", one=[("a", 0.5, 0.1), ("b", 0.5, 0.1)], other=[("a", 0.5, 0.1), ("c", 0.5, 0.1)])) is None
    assert family_table(compared(tmp_path / "y", one=[("a", 0.5, 0.1)])) is None
