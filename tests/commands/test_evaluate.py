"""The request of an evaluation, and the sizes of an episode that a report states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small import few_shot

from metarun.commands.evaluate import Request, check_request, sizes_of
from metarun.errors import UserError
from metarun.types import Episode, Examples


def test_the_sizes_of_an_image_episode_are_counted_per_class() -> None:
    episode = few_shot(ways=3, shots=2, queries=4).episode("test", 0)
    assert sizes_of(episode, "accuracy") == {"ways": 3, "shots": 2, "queries": 4}


def test_the_sizes_of_a_varying_episode_are_the_largest() -> None:
    source = few_shot(ways=4, shots=3, queries=2, min_ways=2, min_shots=1)
    assert all(sizes_of(source.episode("test", n), "accuracy") == {"ways": 4, "shots": 3, "queries": 2} for n in range(5))


def test_classes_that_do_not_occur_are_no_ways() -> None:
    """Labels over all 6 training classes, of which the episode has 2: y has 6 columns, and 4 support rows are 2 shots of 2 ways."""
    labels = torch.eye(6)
    support = Examples(torch.zeros(4, 1), labels[[1, 1, 4, 4]])
    query = Examples(torch.zeros(6, 1), labels[[1, 1, 1, 4, 4, 4]])
    assert sizes_of(Episode(support, query), "accuracy") == {"ways": 2, "shots": 2, "queries": 3}


def test_the_sizes_of_a_regression_episode_are_its_rows_whatever_the_number_of_targets() -> None:
    support, query = (Examples(torch.zeros(rows, 1), torch.full((rows, 3), -5.0)) for rows in (7, 9))
    assert sizes_of(Episode(support, query), "mse") == {"ways": None, "shots": 7, "queries": 9}


def request(**changes: Any) -> Request:
    return check_request({"split": "test", "episodes": 4, "seed": 0, "save": None, **changes})


def test_a_request_has_every_inner_step_scored_unless_told_otherwise(tmp_path: Path) -> None:
    assert request() == Request("test", 4, 0, "all", None)
    assert request(by_step="last", save=str(tmp_path / "a.csv")) == Request("test", 4, 0, "last", tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": "tset"}, "Did you mean 'test'"),
        ({"by_step": "lats"}, "it must be all, thin or last.*Did you mean 'last'"),
        ({"episodes": True}, "episodes=True must be a whole number of at least 1"),
        ({"seed": -1}, "seed=-1 must be a whole number of at least 0"),
        ({"ensemble": "yes"}, "ensemble=yes is unknown; it must be true or false"),
    ],
)
def test_a_bad_request_is_a_sentence(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        request(**changes)
