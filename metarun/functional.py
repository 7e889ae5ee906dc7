"""Small pure functions that several algorithms share: maps over tasks, recomputation, prototypes, Adam."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vjp, vmap
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from metarun.layers.precision import full_precision
from metarun.types import Params

_LOOPS: ContextVar[bool] = ContextVar("_LOOPS", default=False)


@contextmanager
def without_map(active: bool = True) -> Iterator[None]:
    """Let `mapped` and `map_tasks` call a function once for each entry, for networks that torch cannot map. active: False does nothing."""
    token = _LOOPS.set(active or _LOOPS.get())
    try:
        yield
    finally:
        _LOOPS.reset(token)


def derivatives_on_this_thread() -> AbstractContextManager[Any]:
    """Let torch compute derivatives on the calling thread, as it always does on a CPU.

    For a CUDA device torch has another thread. That thread knows neither `without_map` nor bfloat16: its `autocast` takes float16.
    """
    return torch.autograd.set_multithreading_enabled(False)


def mapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function of tensors, mapped over the leading axis of each: by `torch.func.vmap`, or by a loop in `without_map`."""
    if not _LOOPS.get():
        mapping: Callable[..., Any] = vmap(function)
        return mapping

    def loop(*tensors: Tensor) -> Any:
        results = [function(*parts) for parts in zip(*tensors, strict=True)]
        return tree_map(lambda *leaves: torch.stack(leaves), *results)

    return loop


def split_tensors(tree: Any) -> tuple[list[Tensor], Callable[[Iterable[Tensor]], Any]]:
    """Return the tensors of a pytree, in order, and a function that returns the pytree with other tensors in their places.

    Other leaves (a mask None, a number) stay in place. The function takes as many tensors as the list holds.
    """
    leaves, spec = tree_flatten(tree)

    def refill(tensors: Iterable[Tensor]) -> Any:
        remaining = iter(tensors)
        return tree_unflatten([next(remaining) if isinstance(leaf, Tensor) else leaf for leaf in leaves], spec)

    return [leaf for leaf in leaves if isinstance(leaf, Tensor)], refill


def map_tasks(function: Callable[..., Any], *batched: Any) -> Any:
    """Map a function of one task over the leading axis T of every tensor in `batched`; other leaves (a mask None) stay in place.

    Returns the pytree that the function returns; its tensors have a leading axis T.
    """
    tensors, refill = split_tensors(batched)
    refills: list[Callable[[Iterable[Tensor]], Any]] = []  # for its result, whose structure is known after the function has run

    def one(*parts: Tensor) -> list[Tensor]:
        results, refill_result = split_tensors(function(*refill(parts)))
        refills.append(refill_result)
        return results

    if tensors[0].shape[0] == 1:  # no vmap for one task: its batching costs time, and shared-weight convolutions lose their fast layout
        results = [result[None] for result in one(*(tensor[0] for tensor in tensors))]
    else:
        results = mapped(one)(*tensors)
    return refills[-1](results)


def recomputed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Activation checkpointing: return the same pure function of pytrees, which now saves only its arguments for the backward pass.

    The backward pass runs the function again. A chain of recomputed functions needs the memory of one, for about a third more time
    (Chen et al. 2016, "Training deep nets with sublinear memory cost", https://arxiv.org/abs/1604.06174). Every tensor that needs a
    gradient must be an argument. The function must not return an argument unchanged.
    """

    def call(*args: Any) -> Any:
        tensors, refill = split_tensors(args)
        refills: list[Callable[[Iterable[Tensor]], Any]] = []

        def run(*tensors: Tensor) -> tuple[Tensor, ...]:
            results, refill_result = split_tensors(function(*refill(tensors)))
            refills.append(refill_result)
            return tuple(results)

        results = _Recomputed.apply(run, *tensors)
        return refills[-1](results)

    return call


class _Recomputed(torch.autograd.Function):
    """Calls a function of tensors, and calls it again for its derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(run: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
        return run(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.run = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        tensors = list(ctx.saved_tensors)
        wanted = [place for place, needed in enumerate(ctx.needs_input_grad[1:]) if needed]

        def by_wanted(*chosen: Tensor) -> tuple[Tensor, ...]:
            every = list(tensors)
            for place, tensor in zip(wanted, chosen, strict=True):
                every[place] = tensor
            out: tuple[Tensor, ...] = ctx.run(*every)
            return out

        pull = vjp(by_wanted, *(tensors[place] for place in wanted))[1]
        by_place = dict(zip(wanted, pull(gradients), strict=True))
        return None, *(by_place.get(place) for place in range(len(tensors)))


def prototypes(embeddings: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean embedding of each class, (N, D), from embeddings (B, D) and one-hot y (B, N); 0 for a class without examples."""
    weights = y if mask is None else y * mask[:, None]
    with full_precision(y):
        sums = weights.T @ embeddings
    return sums / weights.sum(dim=0).clamp(min=1)[:, None]


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return |a_i - b_j|^2, (A, B), from a (A, D) and b (B, D)."""
    with full_precision(a):  # near points have nearly equal terms, whose difference would be lost in bfloat16
        return a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)[None, :] - 2.0 * a @ b.T


BETAS = (0.9, 0.999)
"""Adam's decay rates of the first and second moments, as in the paper."""
EPS = 1e-8
"""What Adam adds to the root of the second moment, as in the paper."""


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
    params: Params,
    grads: Params,
    moments: Moments,
    lr: Tensor | float,
    *,
    beta1: float = BETAS[0],
    beta2: float = BETAS[1],
    eps: float = EPS,
) -> tuple[Params, Moments]:
    """Return parameters and moments after one step of Adam, in the efficient form at the end of section 2 of the paper.

    Kingma and Ba 2015, https://arxiv.org/abs/1412.6980; TensorFlow uses this form too. It adds eps to the root of the uncorrected moment.
    """
    updates = moments.updates + 1
    first = {name: beta1 * moments.first[name] + (1 - beta1) * grad for name, grad in grads.items()} if beta1 else dict(grads)
    second = {name: beta2 * moments.second[name] + (1 - beta2) * grad.square() for name, grad in grads.items()}
    rate = lr * (1 - beta2**updates).sqrt() / (1 - beta1**updates)
    stepped = {name: params[name] - rate * first[name] / (second[name].sqrt() + eps) for name in grads}
    return {**params, **stepped}, Moments(first, second, updates)
