"""The moments of an outer optimizer, out of a checkpoint: their sizes must fit before a fused kernel reads and writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from metarun.errors import UserError, printable

REMEDY = "the state of the optimizer in the checkpoint does not fit its config; take another checkpoint"


def laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """Return the value, of the parameter's shape, with the parameter's strides. Fused kernels read in memory order and ignore strides."""
    if value.stride() == parameter.stride():
        return value
    return torch.empty_strided(parameter.shape, parameter.stride(), dtype=value.dtype, device=value.device).copy_(value)


def checked_state(
    state: Mapping[str, Any], params: Sequence[Tensor], example: Mapping[int, Mapping[str, Any]]
) -> dict[int, dict[str, Any]]:
    """Return a copy of the entry "state" of a state dict; UserError where it does not fit the parameters.

    state: anything with the form of `torch.optim.Optimizer.state_dict()`. example: the same entry of an optimizer with these parameters
    and options after one step. A parameter without any state has not been stepped.
    """
    if not isinstance(state.get("state"), Mapping) or not _are_groups(state.get("param_groups"), len(params)):
        raise UserError(f"it has not the {len(params)} parameters of the run: {REMEDY}.")
    if unknown := state["state"].keys() - set(range(len(params))):
        raise UserError(f"it has moments of a parameter {printable(min(unknown, key=str))}, and there are {len(params)}: {REMEDY}.")
    return {number: _moments(entries, params[number], example.get(number, {})) for number, entries in state["state"].items() if entries}


def _are_groups(groups: Any, count: int) -> bool:
    """Return whether the value is a list of one or two groups that together have all parameters, in their order."""
    if not (isinstance(groups, list) and 1 <= len(groups) <= 2 and all(isinstance(group, Mapping) for group in groups)):
        return False
    numbers = [group.get("params") for group in groups]
    return all(isinstance(each, list) for each in numbers) and [number for each in numbers for number in each] == list(range(count))


def _moments(entries: Any, param: Tensor, example: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the moments of one parameter."""
    if not isinstance(entries, Mapping) or entries.keys() != example.keys():
        raise UserError(f"a parameter needs {' and '.join(example) or 'no moments'}: {REMEDY}.")
    copied = {}
    for name, wanted in example.items():
        value = entries[name]
        if not _fits(value, wanted):
            raise UserError(f"{name} of a parameter of shape {tuple(param.shape)} is {_words(value)} and not {_words(wanted)}: {REMEDY}.")
        if name == "step" and not 0 <= float(value) < math.inf:
            raise UserError(f"a parameter has made {float(value):g} steps: {REMEDY}.")
        copied[name] = value.clone() if isinstance(value, Tensor) else value
        if isinstance(value, Tensor) and value.shape == param.shape:
            copied[name] = laid_out_as(param, copied[name])
    return copied


def _fits(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Tensor):
        return isinstance(value, Tensor) and value.shape == wanted.shape and value.dtype == wanted.dtype
    return type(value) is type(wanted)


def _words(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
