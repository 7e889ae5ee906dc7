"""The figures of a stream from its matrix: R[i, j] is the score after part i on the held-out examples of part j ≤ i, of N parts.

    average              mean over j of R[N, j]
    incremental_average  mean over i of the mean over j ≤ i of R[i, j]                       (Rebuffi et al. 2017)
    learned              mean over j of R[j, j]
    backward_transfer    mean over j < N of R[N, j] - R[j, j]                                (Lopez-Paz and Ranzato 2017)
    forgetting           mean over j < N of R[j, j] - R[N, j]: first minus last              (Avalanche, Lomonaco et al. 2021)
    forgetting_from_best mean over j < N of max over j ≤ i < N of R[i, j] minus R[N, j]      (Chaudhry et al. 2018)

In regression R is an error. The last three figures change their sign there, so forgetting above 0 is a loss in both kinds of task.
Sources: https://arxiv.org/abs/1611.07725, https://arxiv.org/abs/1706.08840, https://arxiv.org/abs/2104.00405,
https://arxiv.org/abs/1801.10112.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from metarun.engine.averages import interval, mean
from metarun.objectives import Objective
from metarun.types.streams import Trajectory

SINGLE = ("average", "incremental_average", "learned", "backward_transfer", "forgetting", "forgetting_from_best")


def stream_figures(
    objective: Objective, matrices: Tensor, seen: Tensor, *, lengths: Sequence[int], sizes: Trajectory, one_pass: bool
) -> dict[str, Any]:
    """Return the figures of T trajectories, each a mean with half its 95 % interval.

    matrices: (T, R, N), NaN where a part has not come; with a row for each part where `one_pass`, else for each length. seen: (T, L).
    one_pass: whether the learner sees each example once. If not, the figures that need the score right after each part are None.
    """
    rows = list(range(1, sizes.parts + 1)) if one_pass else list(lengths)
    held_out = torch.stack([matrices[:, rows.index(length), :length].mean(dim=1) for length in lengths], dim=1)
    single = {"average": held_out[:, -1], "incremental_average": matrices.nanmean(dim=2).mean(dim=1)}
    single |= _since_learned(matrices, 1.0 if objective.higher_is_better else -1.0) if one_pass else {}
    figures: dict[str, Any] = {
        "parts": sizes.parts,
        "per_part": sizes.per_part,
        "held_out_per_part": sizes.held_out,
        "batch": sizes.batch,
        "one_pass": one_pass,
        "lengths": list(lengths),
        **_with_intervals("held_out", held_out),
        **_with_intervals("seen", seen),
    }
    for name in SINGLE:
        values = single.get(name)
        figures[name] = None if values is None else mean(values)
        figures[f"{name}_ci95"] = None if values is None else interval(values)
    return figures


def _since_learned(matrices: Tensor, sign: float) -> dict[str, Tensor]:
    """Return, for each trajectory, the figures that compare the last row with the score right after each part."""
    first, last = matrices.diagonal(dim1=1, dim2=2), matrices[:, -1]
    figures = {"learned": first.mean(dim=1)}
    if matrices.shape[-1] > 1:
        worse = torch.where(matrices.isnan(), -math.inf, sign * matrices)
        best = worse[:, :-1].amax(dim=1)[:, :-1]
        lost = sign * (first - last)[:, :-1].mean(dim=1)
        figures |= {"backward_transfer": -lost, "forgetting": lost}
        figures["forgetting_from_best"] = (best - sign * last[:, :-1]).mean(dim=1)
    return figures


def _with_intervals(name: str, values: Tensor) -> dict[str, list[float]]:
    """Return the means over trajectories of values (T, L), and half their intervals, by name."""
    return {name: [mean(column) for column in values.T], f"{name}_ci95": [interval(column) for column in values.T]}
