"""Sinusoid regression, the first experiment of MAML.

Finn, Abbeel and Levine, "Model-agnostic meta-learning for fast adaptation of deep networks", ICML 2017, section 5.1:

    y = A sin(x - φ),    amplitude A ~ U[0.1, 5],    phase φ ~ U[0, π],    x ~ U[-5, 5].

The released code has the same ranges (`cbfinn/maml` data_generator.py). The phase shifts the curve; it is not a frequency.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from metarun import draws
from metarun.tasks.functions import Function, FunctionTasks
from metarun.tasks.points import Points, PointSampling

AMPLITUDE = (0.1, 5.0)
PHASE = (0.0, math.pi)
INPUTS = (-5.0, 5.0)


@dataclass(frozen=True)
class Sinusoids:
    """The family y = A sin(x - φ)."""

    def draw(self, key: Tensor) -> Function:
        """Draw amplitudes and phases (T,)."""
        amplitude = draws.uniform(draws.fold(key, "amplitude"), low=AMPLITUDE[0], high=AMPLITUDE[1])
        return {"amplitude": amplitude, "phase": draws.uniform(draws.fold(key, "phase"), low=PHASE[0], high=PHASE[1])}

    def inputs(self, key: Tensor, count: int) -> Tensor:
        """Draw x (T, count, 1)."""
        return draws.uniform(key, count, 1, low=INPUTS[0], high=INPUTS[1])

    def values(self, function: Function, x: Tensor) -> Tensor:
        """Return A sin(x - φ), (T, B, 1)."""
        amplitude, phase = (function[name][:, None, None] for name in ("amplitude", "phase"))
        return amplitude * torch.sin(x - phase)


def sinusoid(**sampling: Points) -> FunctionTasks:
    """Return the source of sinusoid tasks: x (B, 1) in [-5, 5], y (B, 1). sampling: the keys of `PointSampling`."""
    return FunctionTasks(Sinusoids(), PointSampling.of(sampling))
