"""A module with loaded weights as a backbone: its inputs, its frozen layers, the width of its embedding, and its classification layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metarun.errors import UserError, nearest
from metarun.layers.calling import call_with, places_of
from metarun.wiring.around import Around

BORROWED = ("metarun.backbones.timm_model.timm_model",)
"""Functions of metarun that return modules of other packages."""

CLASSIFIERS = ("fc", "_fc", "classifier", "classif", "head", "heads", "logits", "last_linear", "output", "cls_head")
"""The usual names of a classification layer, or of the block that ends with this layer."""

HOOK = "metarun_inputs"
"""The attribute of a module that holds the handle of its `Inputs`."""

LABELS = (1000, 1001, 21841, 21843)
"""Numbers of classes of ImageNet-1k and ImageNet-21k, with and without a class for the background."""

SETS = {
    "in1k": "imagenet-1k",
    "in12k": "imagenet-12k",
    "in21k": "imagenet-21k",
    "in22k": "imagenet-22k",
    "inat21": "inaturalist-2021",
    "lvd142m": "lvd-142m",
    "laion": "laion",
    "openai": "openai-clip",
}
"""Words in timm's names of weights, and the set of images that they stand for."""


@dataclass(frozen=True)
class Inputs:
    """Brings inputs (B, C, ...) into the form that a module expects, before its forward.

    mean, std: (C,) in double precision; None where the inputs stay as they are. repeat: how often the one channel of the inputs occurs.
    """

    mean: Tensor | None
    std: Tensor | None
    repeat: int = 1

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the arguments of the module's forward. For `register_forward_pre_hook`."""
        x, *others = args
        if self.repeat > 1:
            x = x.repeat_interleave(self.repeat, dim=1)
        if self.mean is not None and self.std is not None:
            mean, std = (values.to(x).reshape((1, -1) + (1,) * (x.dim() - 2)) for values in (self.mean, self.std))
            x = (x - mean) / std
        return (x, *others)


def completed(around: Around, module: nn.Module, pretrained: bool) -> Around:
    """Return the keys with what the weights say, where a key is None.

    A module of timm says it in `pretrained_cfg`: mean, std, the licence, and by the name of the weights what they were trained on.
    pretrained: whether the module has these weights.
    """
    facts = _facts(module)
    said: dict[str, Any] = {}
    if around.mean is None and around.std is None and facts.get("mean") is not None and facts.get("std") is not None:
        said |= {"mean": [float(value) for value in facts["mean"]], "std": [float(value) for value in facts["std"]]}
    if pretrained and around.license is None and facts.get("license"):
        said["license"] = str(facts["license"])
    if pretrained and around.pretrained_on is None and (found := _trained_on(facts)):
        said["pretrained_on"] = found
    return dataclasses.replace(around, **said)


def fit(module: nn.Module, around: Around, x: Tensor, name: str) -> None:
    """Fit a module to its inputs and to the keys around it, in place.

    x: (B, ...) inputs of the task. name: of the module in messages. Raises UserError for a layer that does not exist, and for a mean of
    another number of channels than the inputs have.
    """
    for path in [around.without] if isinstance(around.without, str) else around.without or ():
        _remove(module, path, name)
    wanted = _channels(module)
    repeat = 3 if wanted == 3 and x.dim() == 4 and x.shape[1] == 1 else 1  # grey as colour
    mean, std = _scales(around, repeat * x.shape[1])
    inputs = Inputs(mean, std, repeat)
    if (earlier := module.__dict__.pop(HOOK, None)) is not None:
        earlier.remove()  # a function that returns one object twice
    if inputs.repeat > 1 or inputs.mean is not None:
        module.__dict__[HOOK] = module.register_forward_pre_hook(inputs)
    if around.frozen:
        module.requires_grad_(False)
        module.eval()


def give_width(module: nn.Module, x: Tensor) -> None:
    """Set `out_features` from one pass of x, where a module does not say how wide its embedding is and returns vectors.

    A later check refuses a module that fails, or that returns something else.
    """
    if isinstance(getattr(module, "out_features", None), int):
        return
    try:
        outputs = _pass(module, x)
    except Exception:  # `module_checks.examine` runs the module again and explains the error
        return
    if isinstance(outputs, Tensor) and outputs.dim() == 2:
        module.out_features = outputs.shape[1]  # type: ignore[assignment]


def check_no_classifier(module: nn.Module, other: nn.Module, x: Tensor, name: str, *, stated: bool) -> None:
    """Raise UserError if the embedding is the output of a classification layer, which scores the classes of another data set.

    The last layer with parameters counts as one if it is linear, its outputs are the embedding, and it has the width of ImageNet's labels,
    or the usual name of such a layer. A layer with loaded weights counts even under another name, unless the module states its width.
    other: the module made from another seed; loaded weights are the same in both. stated: whether the module's class sets `out_features`.
    """
    last = _last_layer(module, x)
    if last is None:
        return
    path, layer, straight, width = last
    weight, twin = layer.weight, dict(other.named_parameters()).get(f"{path}.weight")
    loaded = twin is not None and torch.equal(weight, twin) and bool(weight.std() > 0)
    named = any(part in CLASSIFIERS for part in path.split("."))
    if straight:
        found = width in LABELS or (named and (loaded or not stated)) or (loaded and not stated)
    else:
        found = named and width in LABELS
    if found:
        raise UserError(
            f"backbone {name} ends with the layer '{path}' of {width} outputs, which is probably the classification layer of another data "
            f"set, so its outputs are not an embedding; backbone.without={path} removes it (timm: num_classes=0), and "
            "backbone.keep_classifier=true takes its outputs."
        )


def _pass(module: nn.Module, x: Tensor) -> Any:
    """Return what a module gives for a copy of x; its own tensors, such as running statistics, stay as they are."""
    tensors = {path: value.detach().clone() for path, value in [*module.named_parameters(), *module.named_buffers()]}
    with torch.no_grad():
        return call_with(module, places_of(module), tensors, x.clone())


def _facts(module: nn.Module) -> Mapping[str, Any]:
    for attribute in ("pretrained_cfg", "default_cfg"):
        found = getattr(module, attribute, None)
        if isinstance(found, Mapping):
            return found
    return {}


def _trained_on(facts: Mapping[str, Any]) -> str | None:
    """Return the sets that the name of the weights holds, such as "imagenet-21k, imagenet-1k"."""
    words = str(facts.get("tag") or "").replace("-", "_").split("_")
    found = [SETS[word] for word in words if word in SETS]
    return ", ".join(dict.fromkeys(found)) or None


def _remove(module: nn.Module, path: str, name: str) -> None:
    """Replace a layer by the identity."""
    known = [each for each, _ in module.named_modules() if each]
    if path not in known:
        raise UserError(f"backbone.without={path}: backbone {name} has no layer '{path}'.{nearest(path, known)}")
    owner, _, attribute = path.rpartition(".")
    setattr(module.get_submodule(owner), attribute, nn.Identity())


def _channels(module: nn.Module) -> int | None:
    """Return the number of channels of the images that a module takes; None where this is unknown."""
    size = _facts(module).get("input_size")
    if isinstance(size, Sequence) and size:
        return int(size[0])
    first = next((layer for layer in module.modules() if isinstance(layer, nn.Conv2d)), None)
    return None if first is None else first.in_channels


def _scales(around: Around, channels: int) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Return mean and standard deviation for these channels; None where the inputs stay as they are."""
    if around.mean is None and around.std is None:
        return None, None
    for key, values in (("mean", around.mean), ("std", around.std)):
        if values is not None and len(values) not in (1, channels):
            raise UserError(f"backbone.{key}={list(values)} has {len(values)} numbers, and the inputs have {channels} channels.")
    mean, std = (torch.tensor(list(values), dtype=torch.float64) for values in (around.mean or [0.0], around.std or [1.0]))
    return mean, std


def _last_layer(module: nn.Module, x: Tensor) -> tuple[str, nn.Linear | nn.Conv2d, bool, int] | None:
    """Return the last layer with parameters that runs on x, if it is linear and as wide as the embedding.

    The result has its name, the layer, whether its outputs are the embedding itself, and the width.
    """
    ran: list[tuple[str, nn.Module, Any]] = []
    handles = []
    for path, layer in module.named_modules():
        if path and next(layer.parameters(recurse=False), None) is not None:

            def after(layer: nn.Module, args: object, out: object, path: str = path) -> None:
                ran.append((path, layer, out))

            handles.append(layer.register_forward_hook(after))
    try:
        outputs = _pass(module, x)
    finally:
        for handle in handles:
            handle.remove()
    if not ran or not isinstance(outputs, Tensor) or outputs.dim() != 2:
        return None
    path, layer, out = ran[-1]
    width = outputs.shape[1]
    if not isinstance(layer, (nn.Linear, nn.Conv2d)) or layer.weight.shape[0] != width:
        return None
    straight = isinstance(out, Tensor) and out.numel() == outputs.numel() and out.data_ptr() == outputs.data_ptr()
    return path, layer, straight, width
