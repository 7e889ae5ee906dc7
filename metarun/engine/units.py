"""Errors of a regression in the unit of each target, for a source that deals standardised targets (`metarun.types.WithUnits`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from metarun.engine.averages import interval, mean, worst
from metarun.errors import UserError
from metarun.types import Examples, TaskSource, WithUnits

Errors = dict[str, dict[str, float]]
"""Target -> "rmse", with the ends "rmse_low" and "rmse_high" of its interval, "mae", with half its interval "mae_ci95", and "unit"."""


SHOWN_TARGETS = 3
"""Targets that a line for a person names; report.json has them all."""


def units_of(source: TaskSource) -> dict[str, float] | None:
    """Return target -> the size of one standardised unit; None for a source that does not say."""
    return (dict(source.units()) or None) if source.objective == "regression" and isinstance(source, WithUnits) else None


def errors_by_target(outputs: Tensor, query: Examples) -> dict[str, Tensor]:
    """Return "squared_error" and "absolute_error" of each target, (D,), averaged over the real queries of one task."""
    real = torch.ones_like(query.y[:, :1]) if query.mask is None else query.mask[:, None].to(query.y.dtype)
    difference = torch.where(real > 0, outputs - query.y, 0.0)
    count = real.sum().clamp(min=1)
    return {"squared_error": difference.square().sum(dim=0) / count, "absolute_error": difference.abs().sum(dim=0) / count}


def in_units(scored: Mapping[str, Tensor], units: Mapping[str, float]) -> tuple[Errors, dict[str, list[float]]]:
    """Return the errors of each target in its unit over all episodes, and those of each episode by the names "rmse X" and "mae X".

    scored: `errors_by_target` with a leading axis of episodes. The RMSE is the root of the mean squared error over the episodes. The roots
    of the ends of this mean's interval, by Student's t, are the interval of the RMSE. The mean of the RMSEs of single episodes would be
    smaller. If an error is not finite, the figure is infinite.
    """
    squared, absolute = worst(scored["squared_error"]), worst(scored["absolute_error"])
    if squared.shape[1] != len(units):
        raise UserError(f"the task source's `units` names {len(units)} targets, but its episodes have {squared.shape[1]} columns of y.")
    errors, by_episode = {}, {}
    for place, (name, unit) in enumerate(units.items()):
        middle, half = mean(squared[:, place]), interval(squared[:, place])
        errors[name] = {
            "rmse": unit * math.sqrt(middle),
            "rmse_low": unit * math.sqrt(max(middle - half, 0.0)),
            "rmse_high": unit * math.sqrt(middle + half),
            "mae": unit * mean(absolute[:, place]),
            "mae_ci95": unit * interval(absolute[:, place]),
            "unit": unit,
        }
        by_episode[f"rmse {name}"] = (unit * squared[:, place].sqrt()).tolist()
        by_episode[f"mae {name}"] = (unit * absolute[:, place]).tolist()
    return errors, by_episode


def over_runs(errors: Sequence[Errors | None]) -> Errors | None:
    """Return the means over runs, with half the interval over the runs; None where a run has no errors in units."""
    known = [each for each in errors if each is not None]
    if not known or len(known) < len(errors):
        return None
    found: Errors = {}
    for target in known[0]:
        values = {name: torch.tensor([each[target][name] for each in known], dtype=torch.float64) for name in ("rmse", "mae")}
        found[target] = {name: mean(each) for name, each in values.items()}
        found[target] |= {f"{name}_ci95": interval(each) for name, each in values.items()} | {"unit": known[0][target]["unit"]}
    return found
