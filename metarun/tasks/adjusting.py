"""The sources of a mixture with the values that the mixture sets for all of them: sizes, labels, seeds and the shape of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from metarun.errors import UserError
from metarun.tasks.converted import fit_images
from metarun.tasks.noisy import Noisy
from metarun.tasks.points import PointSampling
from metarun.tasks.sampling import FewShot
from metarun.types import TaskSource

SEEDS = ("seed", "eval_seed")


def adjusted(name: str, source: TaskSource, values: Mapping[str, Any]) -> TaskSource:
    """Return the source with these fields replaced. A user's own source may lack the seeds, but not the other fields.

    A source of functions that trains with as many query points as it has shots still does so where only `shots` is replaced.
    """
    seeds = {key: values[key] for key in SEEDS}
    if isinstance(source, Noisy):
        return dataclasses.replace(source, source=adjusted(name, source.source, values), **seeds)
    inner = getattr(source, "sources", None)
    if isinstance(inner, Mapping) and dataclasses.is_dataclass(source):  # a mixture in a mixture
        return dataclasses.replace(source, sources={part: adjusted(part, each, values) for part, each in inner.items()}, **seeds)
    holder = getattr(source, "sampling", None)
    if isinstance(holder, PointSampling):
        follows = "shots" in values and holder.train_queries == holder.shots
        points = {**({"train_queries": values["shots"]} if follows else {}), **values}
        return dataclasses.replace(source, sampling=_replaced(name, holder, points))  # type: ignore[type-var]
    return _replaced(name, source, values)


def with_images(name: str, source: TaskSource, size: int | None, channels: int | None) -> TaskSource:
    """Return the source with images of `channels` channels and size x size pixels; None keeps the source's own."""
    inner = getattr(source, "sources", None)
    if isinstance(inner, Mapping) and dataclasses.is_dataclass(source):
        return dataclasses.replace(source, sources={part: with_images(part, each, size, channels) for part, each in inner.items()})
    if size is None and channels is None:
        return source
    key = "image_size" if size is not None else "channels"
    if not isinstance(source, FewShot):
        shape = tuple(source.episode("train", 0).support.x.shape[1:])
        if len(shape) == 3 and (channels or shape[0], size or shape[1], size or shape[2]) == shape:
            return source
        raise UserError(
            f"task.{key} converts images, and the source '{name}' of the mixture deals inputs of shape {shape} that metarun cannot "
            f"convert; give task.{key}=null, or leave it out with task.sources.{name}=null."
        )
    shape = next(iter(source.pools.values())).images.shape[1:]
    if len(shape) != 3:
        raise UserError(f"task.{key} converts images, and the source '{name}' of the mixture deals vectors; give task.{key}=null.")
    return fit_images(source, (channels or shape[0], size or shape[1], size or shape[2]))


def _replaced(name: str, holder: Any, values: Mapping[str, Any]) -> Any:
    """Return the dataclass with its fields replaced; UserError for a value, apart from the seeds, for which it has no field."""
    fields = [entry.name for entry in dataclasses.fields(holder) if entry.init] if dataclasses.is_dataclass(holder) else []
    for key in values:
        if key not in fields and key not in SEEDS:
            raise UserError(
                f"the source '{name}' of the mixture has no field '{key}' to set; give task.{key}=null and set it in the source."
            )
    changes = {key: value for key, value in values.items() if key in fields}
    return dataclasses.replace(holder, **changes) if changes else holder
