"""Training classes among the test classes: a claim about new classes needs classes that the training did not see."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from metarun.engine.families import WithFamilies
from metarun.errors import UserError, nearest
from metarun.records import checkpoint
from metarun.types import Episode, TaskSource, WithOrigins

CHOICES = ("refuse", "allow")


def training_origins(source: TaskSource, earlier: Iterable[str] = ()) -> list[str]:
    """Return the names of the classes or tasks that a run is trained on, with those of the run that it started from."""
    own = source.origins("train") if isinstance(source, WithOrigins) else ()
    return sorted({*own, *earlier})


def kind_of(source: TaskSource) -> str:
    """Return the word for the members of a split of this source: "classes" or "tasks"."""
    return "classes" if source.objective == "classification" else "tasks"


def overlap_with(source: TaskSource, split: str, trained: Collection[str]) -> dict[str, Any] | None:
    """Count the members of a split that are in `trained`, the names of a run's training classes or tasks.

    Returns {"shared", "of", "split", "kind"}, for a source of several families also "by_family", the numbers of the families that share
    some. None where the split has no such member.
    """
    if not isinstance(source, WithOrigins):
        return None
    known, tested = set(trained), source.origins(split)
    shared = sum(name in known for name in tested)
    overlap = {"shared": shared, "of": len(tested), "split": split, "kind": kind_of(source)} if shared else None
    if overlap is None or not isinstance(source, WithFamilies) or not (families := source.families()):
        return overlap
    each = {name: overlap_with(part, split, known) for name, part in families.items()}
    return {**overlap, "by_family": {name: found["shared"] for name, found in each.items() if found}}


def described(overlap: Mapping[str, Any]) -> str:
    """Return an overlap in words, such as "258 of the 423 test classes" or "258 of the 630 test classes (omniglot 258)"."""
    families = ", ".join(f"{name} {count}" for name, count in overlap.get("by_family", {}).items())
    return f"{overlap['shared']} of the {overlap['of']} {overlap['split']} {overlap['kind']}" + (f" ({families})" if families else "")


def check_choice(choice: object) -> bool:
    """Return whether the value of the key `overlap` allows an overlap; UserError for an unknown value."""
    if choice not in CHOICES:
        raise UserError(f"overlap={choice} is unknown; it must be refuse or allow.{nearest(str(choice), CHOICES)}")
    return choice == "allow"


def check_evaluation(source: TaskSource, split: str, trained: Collection[str], choice: object) -> dict[str, Any] | None:
    """Return the overlap of an evaluation, None without one; UserError where there is one and `choice` does not allow it.

    An evaluation on the training split is never refused, since it claims nothing about new classes.
    """
    allowed = check_choice(choice)
    overlap = overlap_with(source, split, trained)
    if overlap is None or split == "train":
        return None
    if not allowed:
        raise UserError(
            f"{described(overlap)} are training {overlap['kind']} of the checkpoint, so the score would say little about new "
            f"{overlap['kind']}; evaluate it with the same division into splits as in its training, or give overlap=allow."
        )
    return overlap


def overlaps_of(source: TaskSource, trained: Collection[str]) -> list[dict[str, Any]]:
    """Return the overlaps of the validation and the test split with the classes or tasks that a run was trained on."""
    return [found for split in ("val", "test") if (found := overlap_with(source, split, trained))]


def check_start(config: Mapping[str, Any], source: TaskSource) -> list[str]:
    """Return the training classes of the run that `init_from` names, [] without one.

    Raises UserError where this run validates or tests on some of these classes and `overlap` does not allow it. The same holds where a
    family of this run trains on validation or test classes of another family.
    """
    allowed = check_choice(config.get("overlap", "refuse"))
    if not allowed:
        _check_families(source)
    if config.get("init_from") is None:
        return []
    trained = checkpoint.find(config["init_from"]).checkpoint.origins
    overlaps = overlaps_of(source, trained)
    if overlaps and not allowed:
        counts = " and ".join(map(described, overlaps))
        raise UserError(
            f"init_from={config['init_from']} was trained on {counts} of this run; "
            "take a run with the same split, or give overlap=allow to use it all the same."
        )
    return trained


def _check_families(source: TaskSource) -> None:
    """Raise UserError where a training class of one family is a validation or test class of another one."""
    families = source.families() if isinstance(source, WithFamilies) else {}
    trained = {name: each.origins("train") for name, each in families.items() if isinstance(each, WithOrigins)}
    for name, each in families.items():
        for other, classes in trained.items():
            if name != other and (overlaps := overlaps_of(each, classes)):
                raise UserError(
                    f"{' and '.join(map(described, overlaps))} of the source '{name}' are training {overlaps[0]['kind']} of the source "
                    f"'{other}'; divide both in the same way, or give overlap=allow to use them all the same."
                )


def population_of(source: TaskSource, split: str, shown: Episode, episodes: int) -> dict[str, Any] | None:
    """Return the classes or tasks that the episodes of a split come from: {"count", "kind", "covers_new"}; None where unknown.

    covers_new is False where every episode has the same classes, or where there are fewer tasks than episodes: then the interval over
    episodes says nothing about new classes or tasks. shown: an episode of the split.
    """
    count = source.population(split) if isinstance(source, WithOrigins) else None
    if count is None:
        return None
    if source.objective == "classification":
        return {"count": count, "kind": f"{split} classes", "covers_new": shown.support.y.shape[-1] < count}
    return {"count": count, "kind": f"{split} tasks", "covers_new": episodes <= count}
