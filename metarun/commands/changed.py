"""Training data that have changed: what changed, and how the user names the place of the old data."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metarun.commands.overrides import leaves
from metarun.commands.rating_division import changed_keys, named
from metarun.errors import UserError, printable
from metarun.files.paths import expanded
from metarun.records.checkpoint import Checkpoint
from metarun.tasks.fingerprint import Fingerprint, differences, of_images, of_table
from metarun.tasks.pictures.image_files import find_images
from metarun.tasks.preparing.preparation import preparation_by
from metarun.tasks.preparing.ratings_preparation import RatingsPreparation, stored_ratings
from metarun.wiring.build import Parts, build

KEYS = ("root", "path")
"""The keys of a task source that name its data."""


def build_again(config: Mapping[str, Any], stored: Checkpoint, *, scored: str | None = None) -> Parts:
    """Build the objects of a checkpoint's config; if this fails and the data have changed, the UserError says so.

    config: the checkpoint's, with the user's changes. scored, errors: as in `metarun.wiring.build.build`.
    """
    try:
        return build(config, scored=scored)
    except UserError as error:
        changed = differences(stored.data, _now(config["task"], stored))
        if not changed:
            raise
        raise UserError(f"{error} The training data have changed: {printable(', '.join(changed))}{remedy(config)}.") from error


def check_statistics(parts: Parts, stored: Checkpoint, typed: Collection[str]) -> None:
    """Refuse keys of ratings under which the outputs of the network stand for other ratings than in the training.

    These keys change the training ratings or the residuals, and with them the mean, the deviation and the item offsets. Files that moved or
    changed are told elsewhere. typed: the keys that the user typed.
    """
    task = dict(leaves(parts.config["task"], "task."))
    new = changed_keys({key: task[key] for key in typed if key in task and key != "task.path"}, stored.config["task"])
    before = stored_ratings(stored.preparation) if new else None
    if before is None or not isinstance(now := preparation_by(parts.source), RatingsPreparation):
        return
    was, found = ([each.mean, each.deviation, *each.offsets] for each in (before, now))
    if len(was) == len(found) and np.allclose(was, found, rtol=1e-6):
        return
    first, second = (
        "residuals" if each.offsets else f"ratings of mean {each.mean:.4g} and deviation {each.deviation:.4g}" for each in (before, now)
    )
    raise UserError(
        f"{' and '.join(named(*each) for each in new.items())} would change what the outputs of the network stand for: the training "
        f"standardised {first}, and the evaluation would standardise {second if first != second else 'others'}; leave "
        f"{'it' if len(new) == 1 else 'them'} out, or train a new run."
    )


def remedy(config: Mapping[str, Any]) -> str:
    """Return how the user names the place of the old data; "" if the config names no file or folder of data."""
    named = [name for name, value in leaves(config["task"], "task.") if name.rpartition(".")[2] in KEYS and isinstance(value, str)]
    own = [name for name in named if name.count(".") == 1 or name.startswith("task.sources.")]  # of the task, or of a mixture's sources
    return f"; if the old data are elsewhere, give {own[0]}=PLACE" if own else ""


def _now(task: Mapping[str, Any], stored: Checkpoint) -> Fingerprint:
    """Return the fingerprint of the files that the task names; {} for another source, or if they cannot be read."""
    place = next((task[key] for key in KEYS if isinstance(task.get(key), str)), None)
    if place is None or task.get("_target_") != stored.config["task"].get("_target_"):
        return {}
    path = Path(expanded(place))
    try:
        if stored.data.get("kind") == "images":
            return of_images(find_images(path))
        # A table that cannot be read as one has no rows to count, so those of the training stand for them: the digest alone differs.
        return of_table(path, stored.data["rows"], stored.data["tasks"]) if stored.data.get("kind") == "table" else {}
    except (UserError, OSError, KeyError):
        return {}
