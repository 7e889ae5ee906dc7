"""The width of a column, and the protocols of a source of ratings."""

from __future__ import annotations

from metarun.tasks.ratings import ratings
from metarun.tasks.sinusoid import sinusoid
from metarun.types import Column, WithColumns, WithRatings


def test_only_a_feature_of_several_words_has_more_than_one_column():
    assert [Column("c", kind, 7, "item").width for kind in ("category", "several")] == [1, 7]
    assert Column("n", "number", 1, "user").width == 1


def test_a_source_of_ratings_keeps_the_protocols_and_a_source_of_functions_does_not():
    source = ratings(made_users=30)
    assert isinstance(source, WithRatings)
    assert isinstance(source, WithColumns)
    assert not isinstance(sinusoid(), WithRatings)
