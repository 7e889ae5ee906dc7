"""The outer optimizer: any optimizer of torch, gradient clipping, and a learning rate that is a pure function of the step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, TypedDict, get_args

import torch
from torch import Tensor

from metarun.engine.moments import checked_state, laid_out_as
from metarun.errors import UserError, nearest
from metarun.values import BelowOne, Count, CountOrZero, Finite, Keys, NotNegative, Positive, Share, Text

Schedule = Literal["constant", "linear", "cosine", "step"]
SCHEDULES = get_args(Schedule)

# Left out: LBFGS needs a closure, SparseAdam sparse gradients, and Muon matrices.
_OPTIMIZERS = {
    name: kind
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and name not in ("Optimizer", "LBFGS", "SparseAdam", "Muon")
}


Pair = tuple[Positive, Positive]


class Options(TypedDict, total=False):
    """Options of torch's optimizers. An option that is not here takes what torch takes."""

    betas: tuple[BelowOne, BelowOne]
    eps: NotNegative | tuple[NotNegative | None, NotNegative]
    weight_decay: NotNegative
    momentum: BelowOne
    dampening: Share
    alpha: Share
    rho: Share
    lambd: NotNegative
    t0: NotNegative
    lr_decay: NotNegative
    initial_accumulator_value: NotNegative
    momentum_decay: NotNegative
    beta2_decay: Finite
    d: Positive
    etas: Pair
    step_sizes: Pair
    amsgrad: bool
    nesterov: bool
    centered: bool
    maximize: bool
    decoupled_weight_decay: bool
    foreach: bool | None
    fused: bool | None
    capturable: Literal[False]
    differentiable: Literal[False]


class OuterOptimizer:
    """Steps meta-parameters in place, by name.

    params: the leaf tensors to step; may be empty. steps: outer steps of the whole run, at which the linear and cosine schedules end.
    name: a class of `torch.optim`. lr: outer learning rate. options: further arguments of that class (betas, momentum, weight_decay, …).
    clip_value: limit of each gradient entry's size. clip_norm: limit of the norm over all gradients, applied after `clip_value`.
    undecayed: name patterns of the parameters that `weight_decay` leaves as they are, such as learned rates.
    schedule: "constant"; "linear" and "cosine", from lr at step 0 to final_lr at step `steps`; "step", times `decay_factor` every
        `decay_every` steps. warmup_steps: first steps, over which the rate rises linearly under every schedule.
    """

    def __init__(
        self,
        params: Mapping[str, Tensor],
        steps: CountOrZero,
        *,
        name: Text = "Adam",
        lr: NotNegative = 1e-3,
        options: Annotated[dict[str, Any], Keys(Options, closed=False)] | None = None,
        undecayed: Sequence[Text] = (),
        clip_norm: Positive | None = None,
        clip_value: Positive | None = None,
        schedule: Schedule = "constant",
        final_lr: NotNegative = 0.0,
        warmup_steps: CountOrZero = 0,
        decay_every: Count = 2000,
        decay_factor: NotNegative = 0.5,
    ) -> None:
        if schedule not in SCHEDULES:
            raise UserError(f"there is no optimizer.schedule '{schedule}'; there are {', '.join(SCHEDULES)}.{nearest(schedule, SCHEDULES)}")
        _at_least(0, steps=steps, lr=lr, final_lr=final_lr, warmup_steps=warmup_steps, decay_factor=decay_factor)
        _at_least(1, decay_every=decay_every)
        _positive(clip_norm=clip_norm, clip_value=clip_value)
        self.steps, self.lr, self.final_lr, self.schedule = steps, lr, final_lr, schedule
        self.warmup_steps, self.decay_every, self.decay_factor = warmup_steps, decay_every, decay_factor
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self._params = dict(params)
        self._spared = [key for key in params if any(fnmatchcase(key, pattern) for pattern in undecayed)]
        self._made = (name, lr, options or {})
        self._torch = _torch_optimizer(self._params, self._spared, *self._made)

    def lr_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0. It depends on nothing else, so a resumed run has the same rates."""
        done = min(step / max(self.steps, 1), 1.0)
        match self.schedule:
            case "linear":
                rate = self.lr * (1.0 - done) + self.final_lr * done
            case "cosine":
                rate = self.final_lr + (self.lr - self.final_lr) * 0.5 * (1.0 + math.cos(math.pi * done))
            case "step":
                rate = self.lr * self.decay_factor ** (step // self.decay_every)
            case _:
                rate = self.lr
        return rate * min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else rate

    @torch.no_grad()
    def update(self, grads: Mapping[str, Tensor], step: int) -> Tensor:
        """Take one step on the parameters, in place; return the norm of the gradient before clipping, as a scalar tensor.

        grads: one for each parameter, by name; they stay unchanged. step: counted from 0.
        """
        if self._torch is None:
            return torch.zeros(())
        gradients = [grads[name] for name in self._params]
        norm = torch.nn.utils.get_total_norm(gradients)
        for parameter, gradient in zip(self._params.values(), self._clip(gradients, norm), strict=True):
            parameter.grad = laid_out_as(parameter, gradient)
        for group in self._torch.param_groups:
            group["lr"] = self.lr_at(step)
        self._torch.step()
        self._torch.zero_grad()  # the gradients belong to the caller
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state as plain containers and tensors."""
        return self._torch.state_dict() if self._torch is not None else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state_dict` returned.

        The options stay those of this optimizer. Raises UserError for a state that does not fit these parameters and options: fused kernels
        read and write as many numbers as a parameter has, whatever the size of its moments.
        """
        if self._torch is None:
            return
        params = [param for group in self._torch.param_groups for param in group["params"]]
        kept = checked_state(state, params, self._after_a_step())
        self._torch.load_state_dict({"state": kept, "param_groups": self._torch.state_dict()["param_groups"]})

    def _after_a_step(self) -> dict[int, dict[str, Any]]:
        """Return the state of such an optimizer, on the CPU, after a step with gradients of zero."""
        params = {name: torch.zeros_like(param, device="cpu", requires_grad=True) for name, param in self._params.items()}
        optimizer = _torch_optimizer(params, self._spared, *self._made)
        assert optimizer is not None
        for param in params.values():
            param.grad = torch.zeros_like(param)
        optimizer.step()
        state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
        return state

    def _clip(self, gradients: list[Tensor], norm: Tensor) -> list[Tensor]:
        if self.clip_value is not None:
            gradients = [gradient.clamp(-self.clip_value, self.clip_value) for gradient in gradients]
        if self.clip_norm is not None:
            norm = torch.nn.utils.get_total_norm(gradients) if self.clip_value is not None else norm
            scale = (self.clip_norm / norm).clamp(max=1.0)
            gradients = [gradient * scale for gradient in gradients]
        return gradients


def _torch_optimizer(
    params: Mapping[str, Tensor], spared: Sequence[str], name: str, lr: float, options: dict[str, Any]
) -> torch.optim.Optimizer | None:
    """Return torch's optimizer; None without parameters. spared: the names of the parameters without weight decay."""
    same = [known for known in _OPTIMIZERS if known.lower() == name.lower()]
    if not same:
        raise UserError(
            f"torch.optim has no optimizer '{name}' that metarun can use; it has {', '.join(_OPTIMIZERS)}.{nearest(name, _OPTIMIZERS)}"
        )
    make: Callable[..., torch.optim.Optimizer] = _OPTIMIZERS[same[0]]
    arguments = inspect.signature(make).parameters
    known = set(arguments) - {"params", "lr"}
    for key in options:
        if key not in known:
            raise UserError(f"optimizer.options.{key} is not an option of {same[0]}.{nearest(str(key), known)}")
    decay = options.get("weight_decay", arguments["weight_decay"].default if "weight_decay" in arguments else 0.0)
    groups = _groups(params, spared if decay else ())
    try:
        # torch refuses an empty list, and the options of an algorithm without parameters are checked too.
        optimizer = make(groups, lr=lr, **_fused(make, list(params.values()), known, options), **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"optimizer.options do not suit {same[0]}: {str(error).rstrip('.')}.") from error
    return optimizer if params else None


def _groups(params: Mapping[str, Tensor], spared: Sequence[str]) -> list[dict[str, Any]]:
    """Return torch's parameter groups: those with weight decay, and those without. A group that would be empty is left out."""
    decayed = [param for name, param in params.items() if name not in spared]
    kept = [params[name] for name in spared]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]] or [{"params": [torch.zeros(())]}]


def _fused(make: Any, params: list[Tensor], known: set[str], options: dict[str, Any]) -> dict[str, bool]:
    """Return the option for torch's fused kernels, where they exist. With them a step of Adam takes 40 to 75 % of the time on two cores."""
    suits = all(param.device.type in ("cpu", "cuda") and param.is_floating_point() for param in params)
    if any(param.is_cuda for param in params):
        suits = suits and make is not torch.optim.Adagrad  # up to torch 2.11 its fused kernel is for the CPU only
    chosen = {"fused", "foreach", "differentiable", "capturable"} & set(options)
    return {"fused": True} if suits and "fused" in known and not chosen else {}


def _at_least(least: float, **values: float) -> None:
    for name, value in values.items():
        if not value >= least:
            key = name if name == "steps" else f"optimizer.{name}"
            raise UserError(f"{key}={value} is too small; it must be at least {least}.")


def _positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not value > 0:
            raise UserError(f"optimizer.{name}={value} must be above 0; null switches clipping off.")
