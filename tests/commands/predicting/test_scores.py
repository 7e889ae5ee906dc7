"""What a prediction says of its labels, by hand."""

from __future__ import annotations

import pytest

from metarun.commands.predicting.scores import scored, told
from metarun.engine.rejection import wilson
from metarun.records.contact_sheet import Query

CLASSES = ["cat", "dog"]


def test_labels_are_counted_the_most_frequent_first() -> None:
    queries = [Query("1", "dog", 0.9), Query("2", None, 0.4), Query("3", "dog", 0.8)]
    assert told(queries, {"cat": 2, "dog": 1}) == "3 images labelled from 3 known images of 2 classes: dog 2, none of these 1"
    many = [Query(str(n), f"class{n:02}", 0.5) for n in range(14)]
    assert told(many, {f"class{n:02}": 1 for n in range(14)}).endswith("class11 1 and 2 more labels")


def test_accuracy_counts_queries_of_known_classes_only() -> None:
    """Right: 1 and 3 of the four with a label of a known class; 4 has no label, 5 is of another class, 6 is a known image."""
    queries = [
        Query("1", "cat", 0.9, "cat"),
        Query("2", "cat", 0.9, "dog"),
        Query("3", "dog", 0.9, "dog"),
        Query("4", "dog", 0.9),
        Query("5", "dog", 0.9, "owl"),
        Query("6", "dog", 0.9, "dog"),
        Query("7", "dog", 0.9, "cat"),
    ]
    found = scored(queries, CLASSES, [name == 5 for name in range(7)], abstains=False)
    assert found.accuracy == 0.5
    low, high = wilson(2, 4)
    assert found.facts["accuracy"] == {"share": 0.5, "low": low, "high": high, "count": 2, "of": 4, "ci95_over": "queries"}
    assert found.facts["copies"] == 1
    assert found.lines[0] == "1 query is a known image too; no score counts it"
    assert found.lines[1].startswith("accuracy 50.0 % [15.0, 85.0] of 4 query images with a label of a known class; the interval covers")
    assert found.lines[2] == "1 query image of 1 other class cannot be right; abstain=0.05 looks for such images"


def test_a_rejected_query_is_wrong_for_a_known_class_and_right_for_another() -> None:
    queries = [Query("1", None, 0.4, "cat"), Query("2", "dog", 0.9, "dog"), Query("3", None, 0.4, "owl"), Query("4", "cat", 0.4, "fox")]
    found = scored(queries, CLASSES, [False] * 4, abstains=True)
    assert found.accuracy == 0.5
    assert found.facts["true_rejected"]["share"] == found.facts["foreign_rejected"]["share"] == 0.5
    assert found.lines[2].endswith("of 2 query images of 2 other classes")


@pytest.mark.parametrize("abstains", [True, False])
def test_without_labels_there_is_no_score(abstains: bool) -> None:
    assert scored([Query("1", "cat", 0.9)], CLASSES, [False], abstains) == ([], {}, None)
