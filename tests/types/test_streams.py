"""The sizes of a trajectory, and the lengths at which it is scored."""

from __future__ import annotations

import pytest

from metarun.types.streams import scored_lengths


@pytest.mark.parametrize(
    ("lengths", "parts", "scored"),
    [
        ((10, 50, 100, 200, 600), 600, [10, 50, 100, 200, 600]),
        ((10, 50, 100), 60, [10, 50, 60]),
        ((50, 10, 10), 20, [10, 20]),
        ((9,), 3, [3]),
    ],
    ids=["all", "shorter", "unordered", "beyond"],
)
def test_lengths_above_the_trajectory_drop_out_and_its_end_is_always_scored(lengths, parts, scored):
    assert scored_lengths(lengths, parts) == scored
