"""Checks of a user's module: metarun computes what torch computes with it, or refuses it before any work.

metarun runs a network as a pure function of its parameters and of its fixed tensors. So a module must not draw random numbers in its
forward, must not change its own tensors there, and must keep each tensor that it computes with where a checkpoint finds it.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import metarun
from metarun import draws
from metarun.errors import UserError, first_line
from metarun.layers.attention import plain_attention
from metarun.layers.calling import call_with, places_of
from metarun.types import Episode
from metarun.wiring.tensors import are_close, check_storable

ROWS = 4
"""Examples that the checks pass through a module."""
TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-3}
"""The largest difference of two equal results, as in `are_close`."""


@dataclass(frozen=True)
class Torchs:
    """What torch computes with a module, before metarun changes the classes of its layers.

    x: (B, ...) inputs. outputs: (B, D). gradients: of a weighted sum of the outputs by each parameter. parameters: the objects.
    changes_input: whether the module changes its input in place.
    """

    x: Tensor
    outputs: Tensor
    gradients: list[Tensor]
    parameters: list[nn.Parameter]
    changes_input: bool


def sample_of(episode: Episode) -> Tensor:
    """Return a few inputs of an episode (B, ...), with a little noise, so that no two values tie under a maximum or a ReLU."""
    x = torch.cat([episode.support.x, episode.query.x])
    x = x[torch.linspace(0, len(x) - 1, min(ROWS, len(x))).long()]
    return x + draws.uniform(draws.key(0, "sample"), *x.shape, high=0.01, dtype=x.dtype) if x.is_floating_point() else x


def examine(module: nn.Module, x: Tensor, name: str) -> Torchs:
    """Return what torch computes with the module on x.

    Raises UserError where the module fails, draws random numbers, returns something else than one vector per example, has a tensor
    that no checkpoint holds, or learns a parameter that is not registered. name: of the module in messages.
    """
    if isinstance(module, torch.jit.ScriptModule) or any("_orig_mod" in path.split(".") for path, _ in module.named_modules()):
        raise UserError(f"backbone {name} is compiled by torch, and metarun needs its Python code; give the module without torch.compile.")
    check_storable(_tensors_of(module), f"backbone {name}")
    drawing, before = _DrawingLayers(module), torch.get_rng_state()
    with drawing:
        found = _attempt(module, x, name)
    if not torch.equal(before, torch.get_rng_state()):
        raise UserError(f"backbone {name}: {drawing.described()}.")
    _check_outputs(module, found, name)
    again = _attempt(module, x, name)
    if not _alike([found.outputs], [again.outputs]):
        raise UserError(
            f"backbone {name} gives two different outputs for the same inputs, and metarun needs a pure function; "
            "remove the random numbers or the counters from its forward."
        )
    return found


def check_adopted(module: nn.Module, torchs: Torchs, name: str) -> None:
    """Raise UserError where the module's forward changes a tensor, or where metarun's layers compute something else than torch's."""
    _check_unchanged(module, torchs.x, name)
    found = _attempt(module, torchs.x, name)
    if [id(value) for value in found.parameters] != [id(value) for value in torchs.parameters]:
        raise UserError(f"backbone {name} has other parameters after metarun has put its layers into it; register each layer once.")
    for what, mine, theirs in (("outputs", [found.outputs], [torchs.outputs]), ("gradients", found.gradients, torchs.gradients)):
        if not _alike(mine, theirs):
            raise UserError(
                f"backbone {name}: with metarun's layers its {what} differ from torch's. Derive its own layers from nn.Module, or let "
                "their forward call super().forward."
            )


def check_saved(other: nn.Module, module: nn.Module, torchs: Torchs, name: str) -> None:
    """Raise UserError where parameters and buffers do not determine the module's function, so that a checkpoint would lose a part of it.

    other: a second module of the same arguments, built from another seed.
    """
    tensors, others = _tensors_of(module), _tensors_of(other)
    same = {path: value.shape for path, value in tensors.items()} == {path: value.shape for path, value in others.items()}
    if same:
        with torch.no_grad():
            copies = {path: _copy(value, torchs.outputs.dtype) for path, value in tensors.items()}
            same = _alike([_call(other, copies, _copy(torchs.x, torchs.outputs.dtype))], [torchs.outputs])
    if not same:
        raise UserError(
            f"backbone {name} draws random numbers in its __init__ and keeps them outside its parameters and buffers, so a checkpoint "
            "would lose them; keep them with self.register_buffer."
        )


def place_of(error: BaseException) -> str:
    """Return the file and the line of the user's code in which an error was raised, in parentheses; empty where there is none."""
    own = (str(Path(torch.__file__).parent), str(Path(metarun.__file__).parent), "<")
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(own)]
    return f" ({Path(lines[-1].filename).name}, line {lines[-1].lineno})" if lines else ""


def _attempt(module: nn.Module, x: Tensor, name: str) -> Torchs:
    """Compute in double precision, or in single precision where the module does not allow double, as where its forward makes tensors."""
    try:
        return _compute(module, x, torch.float64, name)
    except UserError:
        raise
    except Exception:
        try:
            return _compute(module, x, torch.float32, name)
        except UserError:
            raise
        except Exception as error:
            raise unfit(x, name, error) from error


def unfit(x: Tensor, name: str, error: Exception) -> UserError:
    """Return the sentence for an error of a module's forward on x."""
    return UserError(f"backbone {name} cannot take this task's inputs of shape {tuple(x.shape[1:])}: {first_line(error)}{place_of(error)}")


def _compute(module: nn.Module, x: Tensor, dtype: torch.dtype, name: str) -> Torchs:
    tensors, given = {path: _copy(value, dtype) for path, value in _tensors_of(module).items()}, _copy(x, dtype)
    before, parameters = given.clone(), list(module.parameters())
    learned = [tensors[path].requires_grad_() for path, value in module.named_parameters() if value.requires_grad]
    with torch.enable_grad():
        outputs = _call(module, tensors, given)
        gradients = [torch.zeros_like(value) for value in learned]
        if isinstance(outputs, Tensor) and outputs.requires_grad:
            _check_leaves(outputs, tensors, name)
            weights = torch.arange(outputs.numel()).cos().reshape(outputs.shape)
            found = torch.autograd.grad((outputs * weights).sum(), learned, allow_unused=True) if learned else []
            gradients = [zero if gradient is None else gradient for zero, gradient in zip(gradients, found, strict=True)]
    changes = not torch.equal(before, given)
    return Torchs(x, outputs.detach() if isinstance(outputs, Tensor) else outputs, gradients, parameters, changes)


def _call(module: nn.Module, tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    with plain_attention():
        return call_with(module, places_of(module), tensors, x)


def _tensors_of(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _copy(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.detach().to(dtype if value.is_floating_point() else value.dtype, copy=True)


def check_vectors(module: nn.Module, x: Tensor, name: str) -> int:
    """Return the width of the vectors that a module gives for x (B, ...); UserError where it fails or gives something else."""
    outputs = None
    try:
        with torch.no_grad():
            outputs = module(x)
    except Exception as error:
        raise unfit(x, name, error) from error
    _check_outputs(module, Torchs(x, outputs, [], [], False), name)
    return int(outputs.shape[1])


def _check_outputs(module: nn.Module, found: Torchs, name: str) -> None:
    outputs, rows = found.outputs, len(found.x)
    if not isinstance(outputs, Tensor):
        raise UserError(f"backbone {name} returns a {type(outputs).__name__}; it must return one tensor, with one vector per example.")
    if outputs.dim() != 2 or len(outputs) != rows or not outputs.is_floating_point():
        kind = str(outputs.dtype).removeprefix("torch.")
        raise UserError(
            f"backbone {name} gives outputs of shape {tuple(outputs.shape)} and type {kind} for {rows} examples; "
            "it must give one vector per example."
        )
    width = getattr(module, "out_features", None)
    if isinstance(width, int) and width != outputs.shape[1]:
        raise UserError(
            f"backbone {name} gives vectors of {outputs.shape[1]} numbers, but its out_features is {width}; correct out_features."
        )


def _check_leaves(outputs: Tensor, tensors: dict[str, Tensor], name: str) -> None:
    """Raise UserError where the outputs depend on a tensor with a gradient that is no parameter of the module."""
    known = {id(value) for value in tensors.values()}
    for leaf in _leaves_of(outputs):
        if id(leaf) not in known:
            raise UserError(
                f"backbone {name} computes with a parameter of shape {tuple(leaf.shape)} that it has not registered, so nothing would "
                "train or save it; keep layers in an nn.ModuleList and parameters in attributes."
            )


def _leaves_of(outputs: Tensor) -> Iterator[Tensor]:
    pending, seen = [outputs.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        pending.extend(following for following, _ in node.next_functions)


def _check_unchanged(module: nn.Module, x: Tensor, name: str) -> None:
    """Raise UserError where a pass changes a parameter or a buffer; the module keeps its tensors."""
    before = {path: (value, value.detach().clone()) for path, value in _tensors_of(module).items()}
    with torch.no_grad(), plain_attention():
        module(x.clone())
    changed = None
    for path, value in _tensors_of(module).items():
        kept, copy = before[path]
        if value is not kept or not torch.equal(value.nan_to_num(), copy.nan_to_num()):
            changed = changed or path
            owner, _, attribute = path.rpartition(".")
            with torch.no_grad():
                kept.copy_(copy)
            setattr(module.get_submodule(owner), attribute, kept)
    if changed is not None:
        remedy = _remedy(module, changed)
        raise UserError(f"backbone {name} changes its tensor '{changed}' in its forward, and metarun needs a pure function; {remedy}.")


def _remedy(module: nn.Module, path: str) -> str:
    """Return what the user can do about a tensor that forward changes."""
    owner, _, attribute = path.rpartition(".")
    layer = owner.split(".parametrizations")[0]
    if "running_" in attribute or attribute == "num_batches_tracked":
        return f"give its layer '{layer}' track_running_stats=False, or call .eval() on the layer in __init__ to keep its statistics"
    if attribute.endswith(("_u", "_v")):
        return f"call .eval() on its layer '{layer}' in __init__, so that spectral norm keeps its vectors, or use weight norm"
    return "remove the line that changes the tensor"


def _alike(mine: list[Tensor], theirs: list[Tensor]) -> bool:
    """Return whether two lists of tensors of one type are equal, but for rounding."""
    return are_close(mine, theirs, TOLERANCES.get(theirs[0].dtype, 1e-2) if theirs else 0.0)


class _DrawingLayers:
    """Finds the innermost layer that draws from torch's global generator, while it is open."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.found: tuple[str, nn.Module] | None = None

    def __enter__(self) -> None:
        starts: list[Tensor] = []
        self._handles = []
        for path, layer in self.module.named_modules():

            def before(layer: nn.Module, args: object) -> None:
                starts.append(torch.get_rng_state())

            def after(layer: nn.Module, args: object, out: object, path: str = path) -> None:
                if not torch.equal(starts.pop(), torch.get_rng_state()) and self.found is None:
                    self.found = path, layer

            self._handles += [layer.register_forward_pre_hook(before), layer.register_forward_hook(after)]

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()

    def described(self) -> str:
        """Return what draws, and the remedy."""
        path, layer = self.found or ("", self.module)
        drawing = "and metarun cannot repeat its draws"
        if not path:
            return f"its forward draws random numbers, {drawing}; remove them, such as torch.randn, or F.dropout with p above 0"
        kind = type(layer).__name__
        return f"its layer '{path}' ({kind}) draws random numbers, {drawing}; set its dropout (p) to 0, or call .eval() on it in __init__"
