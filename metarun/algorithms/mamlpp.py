"""MAML++: what makes MAML train more stably, in parts that `maml` turns on one by one.

Antreas Antoniou, Harrison Edwards, Amos Storkey. "How to train your MAML", ICLR 2019. https://arxiv.org/abs/1810.09502
Details as in the released code, https://github.com/AntreasAntoniou/HowToTrainYourMAMLPytorch.

    learned rates           θ_{i+1} = θ_i - α_{l,i} ∇_{θ_l} L(θ_i, support)      an α for each tensor l and step i = 0 … S-1 (LSLR)
    multi-step loss         minimise Σ_i w_i L(θ_{i+1}, query)                   w moves to the last step as training goes on (MSL)
    order of derivatives    ∇L is a constant in the first outer steps, and is differentiated afterwards (DA)
    normalisation per step  step i has its own scales, shifts and running statistics (BNWB, BNRS), for the support pass at θ_i and
                            for the query pass at θ_{i+1}

The fifth part, a cosine schedule of the outer rate, is the outer optimizer's. What is learned for S steps goes on with its last entry
where a test takes more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from metarun.layers.norm import Statistics
from metarun.types import Params

LEAST_SHARE = 0.03
"""Of an even share, what the weight of a step before the last does not fall below while the multi-step loss is on."""


def step_weights(step: Tensor, inner_steps: int, annealing_steps: int) -> Tensor:
    """Return the weights w, (S,), of the query losses after each inner step, at outer step `step` (scalar, from 0).

    All 1/S at first; those before the last fall linearly, to 0 at `annealing_steps` but never below 0.03/S, and the last has the rest; from
    `annealing_steps` on the last has all. The released code takes a step of this line every epoch of 500 outer steps.
    """
    done = step.double() / annealing_steps
    earlier = (1.0 - done).clamp(min=LEAST_SHARE) / inner_steps
    earlier = torch.where(done < 1.0, earlier, 0.0).expand(inner_steps - 1)
    return torch.cat([earlier, (1.0 - earlier.sum())[None]])


def annealed(gradients: Params, second_order: Tensor) -> Params:
    """Return the gradients, as constants where `second_order` (bool, scalar) is False.

    A choice between two tensors of equal value, since what is recorded cannot branch: second derivatives are computed in either case and
    then not used, so first-order steps cost as much as second-order ones.
    """
    return {name: torch.where(second_order, gradient, gradient.detach()) for name, gradient in gradients.items()}


def one_per_step(tensors: Params, names: Collection[str], rows: int) -> Params:
    """Return the tensors, those of these names `rows` times, (rows, ...)."""
    return {name: value.expand(rows, *value.shape).clone() if name in names else value for name, value in tensors.items()}


def at_step(tensors: Params, names: Collection[str], step: int) -> Params:
    """Return the tensors, of those of these names the row of an inner step: the first before it, the last after it."""
    return {name: value[max(0, min(step, len(value) - 1))] if name in names else value for name, value in tensors.items()}


def statistics_per_step(support: Sequence[Statistics], query: Sequence[Statistics]) -> Statistics:
    """Return what each step's passes saw, (S, C) by name: the mean of its support pass and, where there is one, its query pass.

    support: of all S steps. query: of the last ones.
    """
    without = len(support) - len(query)
    seen = [*support[:without], *(mean_of(*both) for both in zip(support[without:], query, strict=True))]
    return {name: torch.stack([each[name] for each in seen]) for name in seen[0]}


def mean_of(one: Statistics, other: Statistics) -> Statistics:
    """Return the mean of two sets of statistics."""
    return {name: (value + other[name]) / 2 for name, value in one.items()}
