"""Features: the episodes of an image source, with the embeddings of a frozen network in place of the images.

metarun computes the embeddings of all images once and keeps them in the cache. With equal seeds, the episodes have the same classes and
images as those of the image source, so scores on pixels and on features can be compared episode by episode.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from metarun.errors import UserError
from metarun.records.progress import Progress
from metarun.tasks.pictures.images import cached
from metarun.tasks.pool import unit_range
from metarun.tasks.preparing.feature_preparation import FeaturePreparation
from metarun.tasks.preparing.image_preparation import ImagePreparation
from metarun.tasks.preparing.preparation import preparation_by
from metarun.tasks.sampling import FewShot, Sampling, Ways
from metarun.types import TaskSource
from metarun.values import Built, Count

log = logging.getLogger(__name__)

_RECIPE = 1
"""Part of every cache key of embeddings; raise it when `Embedder` computes another value."""


@dataclass(frozen=True)
class Embedder:
    """A frozen network that turns images into vectors.

    module: in `eval` mode, with the preparation of its inputs in its hooks. width: of its vectors. name: of its class, for messages.
    facts: plain values that determine the preparation of the inputs. device: where it computes.
    """

    module: nn.Module
    width: int
    name: str
    facts: Any = None
    device: str = "cpu"

    def __call__(self, images: Tensor) -> Tensor:
        """Return the embeddings (B, D) of images (B, C, H, W) in [0, 1], float32 on the CPU."""
        x = images.to(self.device, torch.float32)
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
        with torch.inference_mode():
            vectors: Tensor = self.module(x)
        return vectors.float().cpu().clone()

    @cached_property
    def weights(self) -> str:
        """A hash of the weights and of the preparation of the inputs, which a checkpoint keeps."""
        hashed = hashlib.sha256(repr((self.width, self.facts)).encode())
        for name, value in sorted([*self.module.named_parameters(), *self.module.named_buffers()], key=lambda each: each[0]):
            hashed.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            hashed.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return hashed.hexdigest()

    @cached_property
    def digest(self) -> str:
        """A hash of the weights, of the preparation of the inputs, and of the layers with their code, for the cache."""
        hashed = hashlib.sha256(repr((_RECIPE, self.weights, repr(self.module), torch.__version__)).encode())
        for code in sorted({_code_of(type(layer)) for layer in self.module.modules()}):
            hashed.update(code.encode())
        return hashed.hexdigest()


def features(
    *,
    images: Annotated[TaskSource, Built("an image source: a mapping with a _target_")],
    backbone: Annotated[Embedder, Built("a backbone: a mapping with a _target_")],
    batch_size: Count = 64,
    ways: Ways | None = None,
    queries: Count | None = None,
    **sampling: Sampling,
) -> FewShot:
    """Deal the episodes of `images` as vectors (width,).

    backbone: the frozen network. batch_size: images that go through it at once, which bounds the memory.
    ways, queries, sampling: as in `FewShot`; they replace those of `images`, except where they are None.

    Raises UserError for a source that is not made of classes of images, and for `augment`.
    """
    if not isinstance(images, FewShot):
        raise UserError(f"task.images gives a {type(images).__name__}; task=features needs a source of images in classes, such as folder.")
    if sampling.get("augment"):
        raise UserError("task.augment=true changes images, and task=features embeds each image once, as it is; leave it at false.")
    once = {id(pool.images): pool.images for pool in images.pools.values()}  # splits may share one tensor
    embedded = {number: _embedded(pixels, backbone, batch_size) for number, pixels in once.items()}
    pools = {split: replace(pool, images=embedded[id(pool.images)]) for split, pool in images.pools.items()}
    known = {"kind": "features", "images": images.fingerprint(), "weights": backbone.weights}
    of_images = preparation_by(images)
    prepared = None
    if isinstance(of_images, ImagePreparation):
        prepared = FeaturePreparation(of_images, (backbone.width,), backbone.weights, backbone)
    given = {name: value for name, value in {**sampling, "ways": ways, "queries": queries}.items() if value is not None}
    return replace(images, pools=pools, files=known, prepared=prepared, **{**given, "augment": False})


def _embedded(pixels: Tensor, backbone: Embedder, batch_size: int) -> Tensor:
    """Return the embeddings (M, width) of uint8 images (M, C, H, W), from the cache if it has them."""
    facts = [backbone.digest, _digest_of(pixels)]
    return cached("features", facts, (len(pixels), backbone.width), lambda: _compute(pixels, backbone, batch_size), dtype=np.float32)


def _compute(pixels: Tensor, backbone: Embedder, batch_size: int) -> Iterator[np.ndarray]:
    """Yield the embedding (width,) of each image."""
    log.info("embedding %d images with %s (kept in the cache for the next run)", len(pixels), backbone.name)
    with Progress(len(pixels), unit="image") as progress:
        for start in range(0, len(pixels), batch_size):
            vectors = backbone(unit_range(pixels[start : start + batch_size]))
            if not vectors.isfinite().all():
                bad = start + int((~vectors.isfinite().all(dim=1)).nonzero()[0])
                raise UserError(
                    f"backbone {backbone.name} gives values that are not finite for image {bad} of the data; check its weights."
                )
            yield from vectors.numpy()
            progress.update(min(start + batch_size, len(pixels)))


def _digest_of(pixels: Tensor) -> str:
    """Return a hash of all pixels, read in portions."""
    hashed = hashlib.sha256(repr(tuple(pixels.shape)).encode())
    for part in pixels.split(1000):
        hashed.update(part.cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()


def _code_of(kind: type) -> str:
    """Return the name of a class of layers with its code, where the code is not torch's."""
    if kind.__module__.split(".")[0] == "torch":
        return f"{kind.__module__}.{kind.__qualname__}"
    try:
        return f"{kind.__qualname__} {inspect.getsource(kind)}"
    except (OSError, TypeError):
        return kind.__qualname__
