"""The rehearsal of a run: before the first step, an episode goes through training and evaluation. An evaluation rehearses only itself.

A rehearsal maps the training loss over two tasks and differentiates it, and then maps the scores of a validation over two tasks. torch
cannot map every operation over tasks, and maps some to a wrong second derivative without an error. So the rehearsal compares the results
with those of one task after the other. Where they differ, or torch fails, the run loops over the tasks, which is slower.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from metarun import draws
from metarun.compute.device import place
from metarun.compute.plan import Device, Plan
from metarun.compute.running import Runner
from metarun.engine.evaluation import TaskScores
from metarun.engine.training import TaskGradients
from metarun.episodes import stack
from metarun.errors import UserError, first_line
from metarun.network import network_of
from metarun.types import Algorithm, Aux, Episode, Learner, Params, State
from metarun.wiring.module_checks import place_of
from metarun.wiring.tensors import are_close, check_storable, is_alike

log = logging.getLogger(__name__)

Stage = Callable[[Learner, bool, bool], Any]
"""A part of a run on two tasks. Takes the algorithm, whether it loops over the tasks, and whether it computes in double precision."""


_CAUSES = {
    "calling .item()": "it branches on the value of a tensor, or calls .item()",
    "data-dependent control flow": "it branches on the value of a tensor",
    "inplace arithmetic": "it writes values that differ from task to task into a tensor that all tasks share",
    "match the broadcast shape": "it writes values that differ from task to task into a tensor that all tasks share",
    "boolean mask": "it takes a boolean mask as an index",
    "setup_context": "its autograd.Function has no setup_context, which torch.func needs",
    "does not require grad": "no gradient reaches its parameters, since its forward detaches tensors or runs under torch.no_grad",
    "saved tensor hooks": "it uses torch.utils.checkpoint, which torch.func cannot differentiate (algo.recompute=true saves memory too)",
}
"""Causes by words of torch's messages."""


def rehearse(algorithm: Algorithm, episodes: Mapping[str, Episode], device: Device, *, trains: bool = True) -> bool:
    """Return whether training or evaluation needs a loop over tasks in the place of a map.

    episodes: one of "train" and one of "val". trains: whether to rehearse the training too. Logs the reason for a loop. Raises UserError
    where the loop fails too, and where the algorithm draws from torch's global generator.
    """
    params, state = _initial(algorithm)
    tensors = place(params, device.name), place(state, device.name)
    training: dict[str, Stage] = {"training": partial(_train, tensors, episodes["train"], device)} if trains else {}
    return _needs_loop(algorithm, training | {"evaluation": partial(_score, tensors, episodes["val"], device)})


def rehearse_scores(learner: Learner, params: Params, state: State, episode: Episode, device: Device) -> bool:
    """Return whether the evaluation of a trained model, such as an ensemble, needs a loop in the place of its maps; as `rehearse`."""
    return _needs_loop(learner, {"evaluation": partial(_score, (params, state), episode, device)})


def _initial(algorithm: Algorithm) -> tuple[Params, State]:
    """Return the parameters and the state at the start; UserError where a checkpoint cannot hold them."""
    made: Any = algorithm.init(draws.key(0, "init"))
    method = f"{type(algorithm).__name__}.init"
    if not (isinstance(made, tuple) and len(made) == 2 and all(isinstance(part, dict) for part in made)):
        raise UserError(f"{method} returns {type(made).__name__}; it must return two dictionaries of tensors: parameters and state.")
    for part in made:
        check_storable(part, method)
    return made


def _needs_loop(learner: Learner, stages: Mapping[str, Stage]) -> bool:
    reasons = []
    for name, stage in stages.items():
        _, error = _attempt(stage, learner, loop=False)
        if error is None:
            reasons += ["torch maps one of its operations to another result"] if _differs(stage, learner) else []
            continue
        if "randomness error mode" in str(error):
            raise UserError(
                f"{name} with {type(learner).__name__} draws random numbers from torch's global generator{place_of(error)}, and metarun "
                "cannot repeat them; draw with metarun.draws and the argument `key`."
            ) from error
        with _Active(learner) as active:
            _, final = _attempt(stage, learner, loop=True)
        if final is not None:
            raise UserError(_refusal(learner, name, stage, final, active.layer)) from final
        reasons.append(f"{_brief(error)}{place_of(error)}")
    if reasons:
        log.warning("torch cannot map this network over tasks, so metarun computes one task after the other, slower: %s", reasons[0])
    return bool(reasons)


def _attempt(stage: Stage, learner: Learner, *, loop: bool, double: bool = False) -> tuple[Any, Exception | None]:
    """Return the result and the error of a stage. Too little memory is no error: a run may take fewer tasks at once."""
    try:
        return stage(learner, loop, double), None
    except UserError:
        raise
    except Exception as error:
        scarce = isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
        return None, None if scarce else error


def _differs(stage: Stage, learner: Learner) -> bool:
    """Return whether a map gives other results than a loop, in double precision; in single precision if double is not possible."""
    for double, tolerance in ((True, 1e-7), (False, 1e-2)):
        (mapped, failed), (looped, wrong) = (_attempt(stage, learner, loop=loop, double=double) for loop in (False, True))
        if failed is None and wrong is None:
            if mapped is None or looped is None:
                return False
            return not are_close(tree_leaves(mapped), tree_leaves(looped), tolerance)
    return False


def _train(tensors: tuple[Params, State], episode: Episode, device: Device, learner: Learner, loop: bool, double: bool) -> Any:
    assert isinstance(learner, Algorithm)
    shared = (*tensors, torch.zeros((), dtype=torch.long, device=device.name))
    gradients, losses, aux = _run(TaskGradients(learner), shared, episode, device, loop, double)
    if not isinstance(aux, Aux) or losses.dim() != 1:
        raise UserError(f"{type(learner).__name__}.loss must return two values for a task: the loss, which is a scalar, and an Aux.")
    if not double:
        _check_state(learner, tensors[1], aux)
    return gradients, losses


def _check_state(algorithm: Algorithm, state: State, aux: Aux) -> None:
    """Raise UserError where a step changes the names, shapes or types of the state, so that the run could not be resumed."""
    after = algorithm.update_state(state, aux.state)
    if after.keys() != state.keys() or not all(is_alike(after[name], value) for name, value in state.items()):
        raise UserError(f"{type(algorithm).__name__}.update_state must return the state of init: the same names, shapes and types.")


def _score(tensors: tuple[Params, State], episode: Episode, device: Device, learner: Learner, loop: bool, double: bool) -> Any:
    variance = torch.ones((), device=device.name) if learner.objective.kind == "regression" else None
    with torch.no_grad():
        scores = _run(TaskScores(learner, "thin"), (*tensors, variance), episode, device, loop, double)
    return {name: scores[name] for name in ("by_step", "nll") if name in scores}


def _run(function: Callable[..., Any], shared: Any, episode: Episode, device: Device, loop: bool, double: bool) -> Any:
    """Return the results of a function of a chunk of two tasks, as a run computes them. The second task has other inputs."""
    other = tree_map_only(Tensor, torch.Tensor.clone, episode)
    other = Episode(*(part._replace(x=part.x.flip(-1)) for part in other))
    tree = (shared, (stack([episode, other]), draws.key(0, "rehearsal", torch.arange(2))))
    tree = tree_map_only(Tensor, lambda leaf: _cast(leaf, double).to(device.name), tree)
    autocast = device.name.split(":")[0] if device.precision == "bf16" and not double else None
    with Runner(Plan(2, threads=device.threads, autocast=autocast, loop=loop)) as runner:
        return next(iter(runner.map(function, tree[0], [tree[1]], runs=1)))


def _cast(leaf: Tensor, double: bool) -> Tensor:
    return leaf.double() if double and leaf.is_floating_point() else leaf


def _refusal(learner: Learner, name: str, stage: Stage, error: Exception, layer: str | None) -> str:
    """Return the sentence for an error that a loop over tasks does not avoid."""
    remedy = "change this in the backbone or in the algorithm"
    if dataclasses.is_dataclass(learner) and getattr(learner, "first_order", None) is False:
        first_order: Any = dataclasses.replace(learner, first_order=True)
        if _attempt(stage, first_order, loop=True)[1] is None:
            remedy = f"set algo.first_order=true, which needs no second derivatives, or {remedy}"
    where = "" if layer is None else f" in the layer {layer}"
    return f"{name} with {type(learner).__name__} fails{where}: {_brief(error)}{place_of(error)}; {remedy}."


def _brief(error: BaseException) -> str:
    """Return the cause of an error: in our words where its message is known, else the first sentence of the message."""
    known = [cause for words, cause in _CAUSES.items() if words in str(error)]
    return known[0] if known else first_line(error).split(". ")[0].rstrip(".")


class _Active:
    """Notes which layer of a learner's network computes, while it is open; `layer` is the one in which an error was raised."""

    def __init__(self, learner: Learner) -> None:
        network = network_of(learner)
        self._layers: Iterable[tuple[str, nn.Module]] = [] if network is None else network.module.named_modules()
        self._open: list[str] = []
        self._hooks = ExitStack()

    @property
    def layer(self) -> str | None:
        """The name and the kind of the innermost layer that has not ended; None outside all layers."""
        return self._open[-1] if self._open else None

    def __enter__(self) -> _Active:
        for path, layer in self._layers:
            if not path:
                continue

            def before(module: nn.Module, args: object, path: str = path) -> None:
                self._open.append(f"'{path}' ({type(module).__name__})")

            def after(module: nn.Module, args: object, out: object) -> None:
                self._open.pop()

            self._hooks.callback(layer.register_forward_pre_hook(before).remove)
            self._hooks.callback(layer.register_forward_hook(after).remove)
        return self

    def __exit__(self, *exception: object) -> None:
        self._hooks.close()
