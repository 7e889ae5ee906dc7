"""Small pure functions that several algorithms share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vjp, vmap
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from metarun.types import Params


def map_tasks(function: Callable[..., Any], *batched: Any) -> Any:
    """Map a function of one task over the leading axis T of every tensor in `batched`; what is no tensor (a mask None) stays.

    Returns what the function returns, a pytree whose tensors have a leading axis T.
    """
    leaves, spec = tree_flatten(batched)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    returned: list[tuple[list[Any], TreeSpec]] = []

    def one(*parts: Tensor) -> list[Tensor]:
        remaining = iter(parts)
        out, shape = tree_flatten(
            function(*tree_unflatten([next(remaining) if isinstance(leaf, Tensor) else leaf for leaf in leaves], spec))
        )
        returned.append((out, shape))
        return [leaf for leaf in out if isinstance(leaf, Tensor)]

    if tensors[0].shape[0] == 1:  # as it is: batching rules cost time, and convolutions with shared weights keep their fast layout
        results = iter([leaf[None] for leaf in one(*(tensor[0] for tensor in tensors))])
    else:
        results = iter(vmap(one)(*tensors))
    out, shape = returned[-1]
    return tree_unflatten([next(results) if isinstance(leaf, Tensor) else leaf for leaf in out], shape)


def recomputed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a pure function of pytrees of tensors that does the same and remembers only its arguments for its derivative.

    What happens inside is computed again when the derivative is asked for, so a chain of such functions needs the memory of one of them,
    for about a third more time (Chen et al. 2016, "Training deep nets with sublinear memory cost"). The function must take every tensor
    that it differentiates by as an argument, and return none of its arguments as it is.
    """

    def call(*args: Any) -> Any:
        leaves, spec = tree_flatten(args)
        shapes: list[TreeSpec] = []

        def run(*tensors: Tensor) -> tuple[Tensor, ...]:
            given = iter(tensors)
            out = function(*tree_unflatten([next(given) if isinstance(leaf, Tensor) else leaf for leaf in leaves], spec))
            flat, shape = tree_flatten(out)
            shapes.append(shape)
            return tuple(flat)

        out = _Recomputed.apply(run, *(leaf for leaf in leaves if isinstance(leaf, Tensor)))
        return tree_unflatten(list(out), shapes[-1])

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
        found = dict(zip(wanted, pull(gradients), strict=True))
        return None, *(found.get(place) for place in range(len(tensors)))


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
