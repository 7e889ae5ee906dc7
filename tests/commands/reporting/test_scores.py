"""The tables of scores and of differences."""

from __future__ import annotations

from dataclasses import replace

from report_entries import entry, regression

from metarun.commands.reporting.drawing import Gallery
from metarun.commands.reporting.page import Table
from metarun.commands.reporting.scores import differences_section, models_table, scores_section, scores_table
from metarun.commands.reporting.standings import standings_of
from metarun.commands.reporting.verdict import Gap


def cells(table: Table | None) -> list[dict[str, str]]:
    assert table is not None
    return [{title: cell.text for title, cell in zip(table.columns, row, strict=True)} for row in table.rows]


def test_a_row_has_the_numbers_of_the_files() -> None:
    row = cells(scores_table([entry(ece=0.05)]))[0]
    assert row["run"] == "`maml`"
    assert row["accuracy"] == "90.0 % ± 1.0"
    assert row["calibration error"] == "5.00 %"
    assert row["baseline"] == "20.00 %"
    assert row["validation"] == "80.00 %"
    assert (row["tasks"], row["steps"], row["training time"]) == ("4", "60", "2 min")


def test_the_value_of_a_cell_is_that_of_the_file_unrounded() -> None:
    table = scores_table([entry(mean=0.123456789)])
    assert table is not None
    assert table.rows[0][list(table.columns).index("accuracy")].value == 0.123456789


def test_what_many_runs_have_in_common_is_in_the_caption_and_what_differs_is_a_column() -> None:
    many = [entry(str(number)) for number in range(5)]
    table = scores_table(many)
    assert table is not None
    assert not {"baseline", "tasks", "steps"} & set(table.columns)
    assert table.caption.endswith(" Every run: baseline 20.00 %, tasks 4, steps 60.")
    assert cells(scores_table([*many, entry("longer", training={"steps": 90})]))[0]["steps"] == "60"


def test_a_column_that_no_run_fills_is_left_out() -> None:
    row = cells(scores_table([entry()]))[0]
    assert not {"median", "nll", "diverged", "status", "90 % interval covers"} & row.keys()
    assert cells(scores_table([regression(diverged=2, status="stopped")]))[0]["diverged"] == "2"


def test_conditions_that_differ_have_a_column() -> None:
    found = cells(scores_table([entry(shots=1), entry("b", shots=5)]))
    assert [row["shots"] for row in found] == ["1", "5"]
    assert "ways" not in found[0]


def test_a_mean_that_is_not_finite_is_a_dash() -> None:
    assert cells(scores_table([regression(mean=None), regression("b")]))[0]["mean squared error"] == "–"


def test_models_with_several_seeds_have_a_table_of_their_own() -> None:
    one = standings_of([entry()])[0]
    assert models_table([one]) is None
    several = replace(one, name="a", mean=0.456, half=0.12, seeds=3)
    found = models_table([several, one])
    assert [list(row.values()) for row in cells(found)] == [["`a`", "46 % ± 12", "3", "4"], ["`maml`", "90.0 % ± 1.0", "1", "4"]]
    assert found is not None
    assert "a single seed" in found.caption
    only = models_table([several])
    assert only is not None
    assert only.caption == "Means over seeds, with 95 % intervals over seeds."


def test_one_model_has_no_chart() -> None:
    one, two = [entry()], [entry(), entry("b")]
    for entries, count in ((one, 1), (two, 2)):
        found = scores_section(entries, standings_of(entries), Gallery())
        assert found is not None
        assert len(found.blocks) == count


def test_a_difference_has_its_sign_its_intervals_and_its_verdict() -> None:
    found = differences_section("a", [Gap("b", "a", -0.031, 0.008, 600, seeds=3, seeds_half=0.01)], "accuracy", Gallery())
    assert found is not None
    table = found.blocks[1]
    assert isinstance(table, Table)
    row = cells(table)[0]
    assert row["difference (points)"] == "−3.10 ± 0.80"
    assert (row["over seeds"], row["verdict"], row["tasks"]) == ("± 1.00", "worse", "600")
    assert differences_section("a", [], "accuracy", Gallery()) is None
