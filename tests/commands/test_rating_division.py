"""The division of ratings, which an evaluation keeps."""

from __future__ import annotations

from typing import Any

import pytest
from small import composed

from metarun.commands.rating_division import check_division
from metarun.errors import UserError

STORED = composed("task=ratings", "algo=melu", "backbone=embeddings")


@pytest.mark.parametrize("key", [("split_seed", 3), ("new_share", 0.4), ("split", [0.6, 0.2, 0.2]), ("folds", 5), ("new_from", 1990)])
def test_an_evaluation_does_not_divide_the_data_again(key: tuple[str, Any]):
    with pytest.raises(UserError, match=rf"task.{key[0]}=.* the checkpoint has its own division; leave the key out"):
        check_division({f"task.{key[0]}": key[1]}, STORED)
    check_division({f"task.{key[0]}": STORED["task"][key[0]], "task.max_ratings": 9}, STORED)


@pytest.mark.parametrize("items", ["known", "new"])
def test_items_are_not_divided_after_a_training_on_all_items(items: str):
    with pytest.raises(UserError, match=rf"task.items={items} needs items without a training rating.*a new run with task.items=known"):
        check_division({"task.items": items}, STORED)
    check_division({"task.items": items}, {**STORED, "task": {**STORED["task"], "items": "known"}})
