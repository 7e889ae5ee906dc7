"""The learning rate of a learner at test, and its optimizer: the last validation of a run chooses them on validation episodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch

from metarun.errors import UserError
from metarun.types import State

LR = "test_inner_lr"
"""Name of the rate in the state."""
PLAIN = "test_sgd"
"""Name of the choice of plain gradient descent in the state: 1, or 0 for Adam. Only with "best" as the optimizer."""
Optimizer = Literal["adam", "sgd", "best"]
"""Adam, plain gradient descent, or the one with the best validation score."""


def first_choice(optimizer: Optimizer, rates: Sequence[float]) -> State:
    """Return the entries of the state that hold the rate, and the optimizer where it is a choice, before the first validation."""
    return {LR: torch.tensor(rates[0])} | ({PLAIN: torch.tensor(0.0)} if optimizer == "best" else {})


def best_choice(optimizer: Optimizer, rates: Sequence[float], state: State, score: Callable[[State], dict[int, float]]) -> State:
    """Return the state with the rate, and with the optimizer where it is a choice, of the best validation score. For `choose`.

    Where there is one rate alone it holds, whatever rate the state has, such as that of the run of `init_from`.
    """
    plain = [{PLAIN: torch.tensor(value)} for value in (0.0, 1.0)] if optimizer == "best" else [{}]
    tried = [state | {LR: torch.tensor(lr)} | chosen for chosen in plain for lr in rates]
    if len(tried) == 1:
        return tried[0]
    scores = [by_step[max(by_step)] for by_step in map(score, tried)]
    return tried[max(range(len(tried)), key=lambda i: scores[i] if math.isfinite(scores[i]) else -math.inf)]


def check_rates(rates: Sequence[float]) -> None:
    """Raise UserError where there is no rate, or one that is not above 0."""
    if not rates or min(rates) <= 0:
        raise UserError(f"algo.test_inner_lrs={list(rates)} must be one or more rates above 0.")
