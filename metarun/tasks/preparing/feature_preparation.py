"""The preparation of `task=features`: images as their source makes them, and then the embeddings of the frozen network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from metarun.errors import UserError
from metarun.tasks.preparing.image_preparation import ImagePreparation

PORTION = 64
"""Images that go through the network at one time."""


@dataclass(frozen=True)
class FeaturePreparation:
    """Turns images into the vectors that the source deals.

    images: how the images are made. shape: of one vector, (width,). weights: the digest of the network (`Embedder.weights`).
    embed: the network; None in a preparation from a checkpoint until `metarun.wiring.features` has built the network.
    """

    images: ImagePreparation
    shape: tuple[int, ...]
    weights: str
    embed: Callable[[Tensor], Tensor] | None = None
    kind: ClassVar[str] = "features"

    def inputs(self, x: Any) -> Tensor:
        """Return images as float32 vectors (B, width).

        x: images as `ImagePreparation.inputs` takes them, or floats (B, width) or (width,), which are features already.
        """
        if isinstance(x, (Tensor, np.ndarray)) and x.ndim <= 2 and tuple(x.shape[-1:]) == self.shape:
            values = torch.as_tensor(x)
            if values.is_floating_point():
                return values.to(torch.float32).reshape(-1, *self.shape)
        if self.embed is None:
            raise UserError("the network that computes features is not loaded, so images cannot become features.")
        return torch.cat([self.embed(part) for part in self.images.inputs(x).split(PORTION)])

    def targets(self, y: Any) -> Tensor:
        """Raise UserError: features belong to classes."""
        return self.images.targets(y)

    def in_units(self, y: Tensor) -> Tensor:
        """Raise UserError: features belong to classes."""
        return self.images.in_units(y)

    def stored(self) -> dict[str, Any]:
        """Return the plain values; the config of the run names the network."""
        return {"kind": self.kind, "images": self.images.stored(), "weights": self.weights}
