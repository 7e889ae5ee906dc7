"""Small pure functions that several algorithms share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from metarun.types import Episode, Examples, Params, TaskSource


def deal(source: TaskSource, split: str, indices: Tensor, device: torch.device | str = "cpu") -> Episode:
    """Deal the episodes `indices` (T,) with a leading axis T, on the device; at once where the source can."""
    if hasattr(source, "batch"):
        episodes: Episode = source.batch(split, indices)
    else:
        episodes = stack([source.episode(split, int(index)) for index in indices])
    on_device: Episode = tree_map_only(Tensor, lambda leaf: leaf.to(device, non_blocking=True), episodes)
    return on_device


def map_tasks(function: Callable[..., Any], *batched: Any) -> Any:
    """Map a function of one task over the leading axis T of every tensor in `batched`; what is no tensor (a mask None) stays.

    Returns what the function returns, a pytree of tensors, with a leading axis T.
    """
    leaves, spec = tree_flatten(batched)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def one(*parts: Tensor) -> Any:
        remaining = iter(parts)
        return function(*tree_unflatten([next(remaining) if isinstance(leaf, Tensor) else leaf for leaf in leaves], spec))

    if tensors[0].shape[0] == 1:  # as it is: batching rules cost time, and convolutions with shared weights keep their fast layout
        return tree_map_only(Tensor, lambda leaf: leaf[None], one(*(tensor[0] for tensor in tensors)))
    return vmap(one)(*tensors)


def stack(episodes: list[Episode]) -> Episode:
    """Stack episodes of equal shapes along a new first axis T."""

    def join(parts: list[Examples]) -> Examples:
        masks = [part.mask for part in parts if part.mask is not None]
        return Examples(
            torch.stack([part.x for part in parts]), torch.stack([part.y for part in parts]), torch.stack(masks) if masks else None
        )

    return Episode(join([episode.support for episode in episodes]), join([episode.query for episode in episodes]))


def prototypes(embeddings: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean embedding of each class, (N, D), from embeddings (B, D) and one-hot y (B, N); 0 for a class without examples."""
    weights = y if mask is None else y * mask[:, None]
    return (weights.T @ embeddings) / weights.sum(dim=0).clamp(min=1)[:, None]


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return |a_i - b_j|^2, (A, B), from a (A, D) and b (B, D)."""
    return a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)[None, :] - 2.0 * a @ b.T


class Moments(NamedTuple):
    """Adam's memory: first and second moments by parameter, and the number of updates so far (scalar)."""

    first: Params
    second: Params
    updates: Tensor

    @staticmethod
    def zero(params: Params) -> Moments:
        """Return the moments before the first update."""
        zeros = {name: torch.zeros_like(value) for name, value in params.items()}
        return Moments(zeros, dict(zeros), torch.zeros(()))


def adam(
    params: Params, grads: Params, moments: Moments, lr: Tensor | float, *, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8
) -> tuple[Params, Moments]:
    """Return parameters and moments after one step of Adam, in the efficient form at the end of section 2 of the paper.

    Kingma and Ba 2015, https://arxiv.org/abs/1412.6980; that form, which TensorFlow uses too, adds eps to the uncorrected root.
    """
    updates = moments.updates + 1
    first = {name: beta1 * moments.first[name] + (1 - beta1) * grad for name, grad in grads.items()} if beta1 else dict(grads)
    second = {name: beta2 * moments.second[name] + (1 - beta2) * grad.square() for name, grad in grads.items()}
    rate = lr * (1 - beta2**updates).sqrt() / (1 - beta1**updates)
    stepped = {name: params[name] - rate * first[name] / (second[name].sqrt() + eps) for name in grads}
    return {**params, **stepped}, Moments(first, second, updates)
