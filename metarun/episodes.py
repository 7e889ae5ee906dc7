"""Dealing episodes: a batch of a source, a stack of episodes, and the first episode of a batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from metarun.types import Episode, Examples, TaskSource, WithBatches


def deal(source: TaskSource, split: str, indices: Tensor, device: torch.device | str = "cpu") -> Episode:
    """Deal the episodes `indices` (T,) with a leading axis T, on the device; all at once where the source can."""
    if isinstance(source, WithBatches):
        episodes = source.batch(split, indices)
    else:
        episodes = stack([source.episode(split, int(index)) for index in indices])
    on_gpu = torch.device(device).type == "cuda"

    def move(leaf: Tensor) -> Tensor:
        pinned = leaf.pin_memory() if on_gpu and leaf.device.type == "cpu" else leaf  # the host need not wait for a copy of pinned memory
        return pinned.to(device, non_blocking=True)

    on_device: Episode = tree_map_only(Tensor, move, episodes)
    return on_device


def stack(episodes: list[Episode]) -> Episode:
    """Stack episodes of equal shapes along a new first axis T."""

    def join(parts: list[Examples]) -> Examples:
        fields = [[value for value in values if value is not None] for values in zip(*parts, strict=True)]
        return Examples(*(torch.stack(values) if values else None for values in fields))  # type: ignore[arg-type]

    return Episode(join([episode.support for episode in episodes]), join([episode.query for episode in episodes]))


def first_of(batch: Episode) -> Episode:
    """Return the first episode of a batch."""
    first: Episode = tree_map_only(Tensor, lambda leaf: leaf[0], batch)
    return first
