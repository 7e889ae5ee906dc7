"""The LSTM meta-learner: an update rule that is one recurrent network for every coordinate.

Sachin Ravi, Hugo Larochelle. "Optimization as a Model for Few-Shot Learning", ICLR 2017. https://openreview.net/forum?id=rJY0-Kcll

    h_i = LSTM([∇̃, L̃], h_{i-1})                             for each coordinate, over inner steps i, with shared weights
    g_i = σ(w_g · [h_i, θ_i, g_{i-1}] + b_g)                  input gate: the rate                            (section 3.2)
    f_i = σ(w_f · [h_i, θ_i, f_{i-1}] + b_f)                  forget gate: the share of the parameter that stays
    θ_{i+1} = f_i ∘ θ_i - g_i ∘ ∇L(θ_i, support)              the cell state of a second LSTM is θ itself

∇̃ and L̃ are the gradient's coordinate and the loss, as two numbers each (Andrychowicz et al. 2016, appendix A; p = 10):

    x̃ = (log|x| / p, sign x)  where |x| ≥ exp(-p),   and  (-1, exp(p) x)  otherwise

At the start the gates act like gradient descent: f is near 1 and g is small. The initial cell state is the network's initialisation,
learned as in MAML. The paper takes ∇L and L as constants; here that is `first_order=true`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from metarun import draws
from metarun.algorithms.parts.inner_loop import Slope
from metarun.algorithms.parts.recurrent import LstmState, lstm_cell, lstm_init
from metarun.errors import UserError
from metarun.types import Params, part_of, prefixed
from metarun.values import Finite, Size

CELL, WEIGHT = "cell.", 0.01


class Memory(NamedTuple):
    """state: of the LSTM, (P, units) each for P coordinates. rate, keep: the gates g and f of the step before, (P,)."""

    state: LstmState
    rate: Tensor
    keep: Tensor


@dataclass(frozen=True)
class Lstm:
    """The LSTM meta-learner.

    units: the size of h. rate_bias, keep_bias: b_g and b_f at the start; σ(-4.5) is a rate of 0.011, σ(5) keeps 99.3 % of a parameter. The
    released code draws both from U[-5, -4] and U[4, 6]. It draws the weights of the gates, as here, from U[-0.01, 0.01].
    """

    units: Size = 20
    rate_bias: Finite = -4.5
    keep_bias: Finite = 5.0

    def __post_init__(self) -> None:
        if self.units < 1:
            raise UserError(f"algo.update.units={self.units} must be at least 1.")

    def init(self, weights: Params, key: Tensor) -> Params:
        """Return the weights of the LSTM and of the two gates."""
        cell = lstm_init(draws.fold(key, "cell"), 4, self.units)
        gates: Params = {}
        for gate, bias in (("rate", self.rate_bias), ("keep", self.keep_bias)):
            gates[f"{gate}_weight"] = draws.uniform(draws.fold(key, gate), self.units + 2, low=-WEIGHT, high=WEIGHT)
            gates[f"{gate}_bias"] = torch.tensor(bias)
        return prefixed(CELL, cell) | gates

    def start(self, weights: Params) -> Memory:
        """Return a memory of zeros."""
        flat = flattened(weights)
        hidden = flat.new_zeros(len(flat), self.units)
        return Memory(LstmState(hidden, hidden), torch.zeros_like(flat), torch.zeros_like(flat))

    def step(self, learned: Params, weights: Params, slope: Slope, memory: Memory, number: int) -> tuple[Params, Memory]:
        """Return θ and the memory after a step."""
        theta, gradient = flattened(weights), flattened({name: slope.gradients[name] for name in weights})
        inputs = torch.cat([preprocessed(gradient), preprocessed(slope.loss).expand(len(gradient), 2)], dim=1)
        state = lstm_cell(part_of(learned, CELL), inputs, memory.state)

        def gate(name: str, before: Tensor) -> Tensor:
            seen = torch.cat([state.hidden, theta[:, None], before[:, None]], dim=1)
            return torch.sigmoid(seen @ learned[f"{name}_weight"] + learned[f"{name}_bias"])

        rate, keep = gate("rate", memory.rate), gate("keep", memory.keep)
        return shaped(keep * theta - rate * gradient, weights), Memory(state, rate, keep)


def preprocessed(x: Tensor, p: float = 10.0) -> Tensor:
    """Return x̃ (..., 2): logarithm and sign, or -1 and the enlarged x where x is tiny. So a network can read x of any size."""
    least = math.exp(-p)
    large = x.abs() >= least
    # Where x is tiny, take the logarithm of another number: at x = 0 the derivative of log x times zero is NaN.
    logarithm = torch.where(large, x.abs(), least).log() / p
    return torch.stack([logarithm, torch.where(large, x.sign(), x / least)], dim=-1)


def flattened(weights: Params) -> Tensor:
    """Return all coordinates in one vector, (P,)."""
    return torch.cat([value.reshape(-1) for value in weights.values()])


def shaped(flat: Tensor, like: Params) -> Params:
    """Return coordinates (P,) as tensors with the names and shapes of `like`: the inverse of `flattened`."""
    parts = flat.split([value.numel() for value in like.values()])
    return {name: part.reshape(value.shape) for (name, value), part in zip(like.items(), parts, strict=True)}
