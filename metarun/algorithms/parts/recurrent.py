"""A long short-term memory made of linear operations, which can be mapped over tasks; torch's own `nn.LSTM` has no batching rule.

Hochreiter and Schmidhuber. "Long Short-Term Memory", Neural Computation 9(8), 1997, with the forget gate of Gers et al. 2000:

    i, f, o = sigmoid(W x + U h + b),   g = tanh(W x + U h + b)        i, f, g and o have rows of their own, in this order
    c ← f * c + i * g,   h ← o * tanh(c)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from metarun import draws
from metarun.types import Params


class LstmState(NamedTuple):
    """hidden: h, the output. cell: c, the memory. Both are (..., U) with the leading axes of the inputs."""

    hidden: Tensor
    cell: Tensor


def lstm_init(key: Tensor, inputs: int, units: int, *, orthogonal: bool = False) -> Params:
    """Return weight_input (4U, D), weight_hidden (4U, U) and bias (4U,) of a cell with D inputs and U units.

    Weights are uniform within ±1/√U, as in torch; the bias is 1 for the forget gate and 0 elsewhere (Jozefowicz et al. 2015).
    orthogonal: the U x U weights of h are random orthogonal matrices (Saxe et al. 2014), which keep the length of h.
    """
    limit = 1.0 / math.sqrt(units)
    bias = torch.zeros(4, units)
    bias[1] = 1.0
    hidden_key = draws.fold(key, "weight_hidden")
    if orthogonal:
        hidden = torch.cat([random_orthogonal(draws.fold(hidden_key, gate), units) for gate in range(4)])
    else:
        hidden = draws.uniform(hidden_key, 4 * units, units, low=-limit, high=limit)
    inner = draws.uniform(draws.fold(key, "weight_input"), 4 * units, inputs, low=-limit, high=limit)
    return {"weight_input": inner, "weight_hidden": hidden, "bias": bias.flatten()}


def random_orthogonal(key: Tensor, size: int) -> Tensor:
    """Return a random orthogonal matrix (size, size), uniform over all of them.

    Mezzadri 2007: Q of the QR decomposition of a normal matrix, with the signs of R's diagonal.
    """
    q, r = torch.linalg.qr(draws.normal(key, size, size, dtype=torch.float64))
    return (q * r.diagonal().sign()).float()


def lstm_start(params: Params, like: Tensor) -> LstmState:
    """Return the zero state for inputs with the leading axes of `like` (..., D)."""
    zeros = like.new_zeros(*like.shape[:-1], params["weight_hidden"].shape[1])
    return LstmState(zeros, zeros)


def lstm_cell(params: Params, x: Tensor, state: LstmState | tuple[Tensor, Tensor]) -> LstmState:
    """Return the state after one input x (..., D); its `hidden` is the output."""
    hidden, cell = state
    gates = F.linear(x, params["weight_input"], params["bias"]) + F.linear(hidden, params["weight_hidden"])
    enter, forget, new, leave = gates.chunk(4, dim=-1)
    cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
    return LstmState(leave.sigmoid() * cell.tanh(), cell)
