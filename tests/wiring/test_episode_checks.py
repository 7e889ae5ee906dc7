"""The first episodes of a task source: those of every form pass or are one sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from metarun.errors import UserError
from metarun.types import Episode, Examples
from metarun.wiring.episode_checks import check_episodes

GOOD = Examples(torch.rand(3, 2), torch.rand(3, 1))


def test_good_episodes_pass_also_with_other_numbers_of_columns_and_rows_by_split() -> None:
    masked = Examples(torch.rand(4, 2), torch.rand(4, 5), torch.ones(4, dtype=torch.bool))
    check_episodes({"train": Episode(GOOD, GOOD), "val": Episode(masked, masked)}, "mine.Source")


@pytest.mark.parametrize("episode", [None, (GOOD, GOOD), Episode((GOOD.x, GOOD.y), GOOD)])  # type: ignore[arg-type]
def test_what_is_no_episode_is_refused(episode: Any) -> None:
    with pytest.raises(UserError, match=r"^task mine\.Source deals \w+; it must deal a metarun\.types\.Episode of two Examples\.$"):
        check_episodes({"train": episode}, "mine.Source")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (GOOD._replace(x=GOOD.x.numpy()), "x has the type ndarray, and must be a tensor"),
        (GOOD._replace(x=torch.rand(3)), r"x has shape \(3,\), and must have an axis of examples"),
        (GOOD._replace(y=torch.rand(3)), r"y has shape \(3,\) and type float32, and must be \(examples, columns\)"),
        (GOOD._replace(y=torch.ones(3, 1, dtype=torch.long)), r"y has shape \(3, 1\) and type int64"),
        (GOOD._replace(y=torch.rand(4, 1)), "x has 3 rows and y has 4; they must"),
        (Examples(torch.rand(0, 2), torch.rand(0, 1)), "x has 0 rows and y has 0; they must have the same number, and at least one"),
        (GOOD._replace(mask=torch.ones(3)), "mask must be None or one bool for each row"),
        (GOOD._replace(x=torch.rand(3, 4)), r"its inputs have shape \(4,\), and others have \(2,\)"),
        (GOOD._replace(y=torch.rand(3, 4)), "its y has 4 columns, and that of the support set has 1"),
    ],
)
def test_a_set_of_another_form_is_refused_with_its_place(query: Examples, words: str) -> None:
    with pytest.raises(UserError, match=rf"^task mine\.Source, query set of the first episode of split=val: {words}"):
        check_episodes({"train": Episode(GOOD, GOOD), "val": Episode(GOOD, query)}, "mine.Source")
