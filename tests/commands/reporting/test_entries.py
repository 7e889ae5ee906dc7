"""The entries of a report read files of strangers."""

from __future__ import annotations

import math

from report_entries import entry

from metarun.commands.comparing.reading import mapping
from metarun.commands.reporting.entries import Entry, groups_of, numbers_of, sequence


def test_an_entry_tells_its_score() -> None:
    one = entry(ci95=math.inf, config={"options": {"algo": "maml"}})
    assert (one.metric, one.mean, one.half, one.scored, one.options["algo"]) == ("accuracy", 0.9, None, True, "maml")
    assert one.best["score"] == 0.8


def test_an_entry_without_an_evaluation_has_no_score() -> None:
    one = Entry("a", "a", training={"metric": "mse", "best": None})
    assert (one.metric, one.mean, one.scored, dict(one.best)) == ("mse", None, False, {})


def test_values_of_another_type_are_empty() -> None:
    assert (mapping([1]), sequence({"a": 1}), sequence("text")) == ({}, (), ())
    assert numbers_of([1, None, "x", math.nan]) == [1.0, None, None, None]


def test_runs_of_one_group_are_together_in_the_order_of_the_first() -> None:
    found = groups_of([entry("b 1", "b"), entry("a"), entry("b 2", "b")])
    assert [(name, len(each)) for name, each in found.items()] == [("b", 2), ("a", 1)]
