"""The division of ratings, which an evaluation keeps as it was in the training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metarun.errors import UserError
from metarun.wiring.fitting import shown

RATINGS = "metarun.tasks.ratings.ratings"
DRAWN = ("split", "folds", "fold", "split_seed", "new_share", "new_from")
"""The keys by which a training divides users, items and ratings. Its checkpoint has the division itself."""


def check_division(typed: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Refuse another division of ratings than that of the training.

    typed: dotted key -> value that the user typed for the task of the checkpoint. stored: the checkpoint's config.
    """
    task = stored["task"]
    if task.get("_target_") != RATINGS:
        return
    new = changed_keys(typed, task)
    for key in DRAWN:
        if key in new:
            raise UserError(
                f"{named(key, new[key])} divides the users, items or ratings of a training, and the checkpoint has its own "
                "division; leave the key out, or train a new run with it."
            )
    if task.get("items") == "any" and "items" in new:
        raise UserError(
            f"{named('items', new['items'])} needs items without a training rating, and the checkpoint was trained with task.items=any, so "
            "its training saw all items; train a new run with task.items=known."
        )


def named(key: str, value: Any) -> str:
    """Return a key of a task with its value, as the user types it."""
    return f"task.{key}={value if isinstance(value, str) else shown(value)}"


def changed_keys(typed: Mapping[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the typed keys of a task, without "task.", that have another value than in the checkpoint."""
    keys = {key.removeprefix("task."): value for key, value in typed.items()}
    return {key: value for key, value in keys.items() if value != task.get(key)}
