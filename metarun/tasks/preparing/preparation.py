"""Preparations: how a source makes its inputs from raw examples, so that a checkpoint does the same with a user's examples.

A preparation holds plain values only. `stored` gives them to a checkpoint, and `preparation_of` reads them back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from metarun.errors import UserError
from metarun.tasks.preparing.feature_preparation import FeaturePreparation
from metarun.tasks.preparing.image_preparation import MOST_SIDE, ImagePreparation
from metarun.tasks.preparing.ratings_preparation import RatingsPreparation, stored_ratings
from metarun.tasks.preparing.table_preparation import TablePreparation, stored_table
from metarun.tasks.sampling import FewShot
from metarun.tasks.tables.raw_numbers import numbers_of, rows_of


class Preparation(Protocol):
    """Turns raw examples into the tensors of a source's episodes, and outputs into the unit of the raw targets."""

    def inputs(self, x: Any) -> Tensor:
        """Return raw inputs as the source deals them, float32 (B, ...). UserError for inputs that cannot be prepared."""

    def targets(self, y: Any) -> Tensor:
        """Return raw targets of a regression as the source deals them, float32 (B, D)."""

    def in_units(self, y: Tensor) -> Tensor:
        """Return targets (..., D) of the source in their own units, float64."""

    def stored(self) -> dict[str, Any]:
        """Return the plain values from which `preparation_of` makes the same preparation."""


@runtime_checkable
class WithPreparation(Protocol):
    """A source that says how it makes its inputs. A checkpoint of its run can then be used without the data."""

    def preparation(self) -> Preparation | None:
        """Return the preparation; None where the inputs are taken as they are."""


@dataclass(frozen=True)
class ArrayPreparation:
    """Takes numbers as they are. shape: of one input. columns: the number D of targets; 0 in classification."""

    shape: tuple[int, ...]
    columns: int = 0

    def inputs(self, x: Any) -> Tensor:
        """Return x as float32 (B, *shape)."""
        values = numbers_of(x, "x")
        if tuple(values.shape[1:]) != self.shape or not len(values):
            raise UserError(f"x has shape {tuple(values.shape)}; this model takes inputs of shape {self.shape}, with an axis of examples.")
        return values.to(torch.float32)

    def targets(self, y: Any) -> Tensor:
        """Return y, (B,) or (B, D), as float32 (B, D)."""
        return rows_of(y, self.columns).to(torch.float32)

    def in_units(self, y: Tensor) -> Tensor:
        """Return y in float64."""
        return y.double()

    def stored(self) -> dict[str, Any]:
        """Return nothing: the shapes of the checkpoint say it all."""
        return {}


def preparation_by(source: object) -> Preparation | None:
    """Return how a source makes its inputs; None where it takes them as they are, or where metarun cannot say how it makes them.

    Images that are not square have no preparation: the sources of files make square ones.
    """
    if isinstance(source, WithPreparation):
        return source.preparation()
    if not isinstance(source, FewShot):
        return None
    pool = source.pools["train"]
    if pool.images.dim() != 4:
        return source.prepared
    channels, height, width = pool.images.shape[1:]
    return ImagePreparation(height, channels, pool.inverted) if height == width and channels in (1, 3) else None


def preparation_of(stored: Mapping[str, Any], shape: Iterable[int], columns: int) -> Preparation:
    """Return the preparation of a checkpoint, whose values a stranger may have written.

    shape: of one input, which the network takes. columns: of the targets; 0 in classification.
    Raises UserError for values that describe no preparation of metarun, or one of another shape.
    """
    shape = tuple(shape)
    if not stored:
        return ArrayPreparation(shape, columns)
    made: ImagePreparation | TablePreparation | FeaturePreparation | RatingsPreparation | None = None
    if stored.get("kind") == ImagePreparation.kind:
        made = _stored_images(stored)
    elif stored.get("kind") == FeaturePreparation.kind:
        images, weights = stored.get("images"), stored.get("weights")
        of_images = _stored_images(images) if isinstance(images, Mapping) else None
        made = FeaturePreparation(of_images, shape, weights) if of_images is not None and isinstance(weights, str) else None
    elif stored.get("kind") == TablePreparation.kind:
        made = stored_table(stored)
        made = made if made is None or len(made.targets_named) == columns else None
    elif stored.get("kind") == RatingsPreparation.kind and columns == 1:
        made = stored_ratings(stored)
    if made is None or made.shape != shape:
        raise UserError("the checkpoint describes its inputs in a way that this metarun cannot read; take another checkpoint.")
    return made


def _stored_images(stored: Mapping[str, Any]) -> ImagePreparation | None:
    """Return the preparation of images that a checkpoint describes; None where the values are none."""
    size, channels, inverted = (stored.get(name) for name in ("size", "channels", "inverted"))
    if type(size) is int and 1 <= size <= MOST_SIDE and channels in (1, 3) and type(channels) is int and type(inverted) is bool:
        return ImagePreparation(size, channels, inverted)
    return None
