"""A network of timm (PyTorch Image Models, https://github.com/huggingface/pytorch-image-models) without its classification layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from metarun.errors import UserError, first_line, nearest
from metarun.files.paths import expanded
from metarun.values import InputShape, Text


def timm_model(
    *, input_shape: InputShape, name: Text, pretrained: bool = True, weights: Text | None = None, options: dict[str, Any] | None = None
) -> nn.Module:
    """Return timm's model `name`, such as "resnet18.a1_in1k", as a network that gives one vector per image.

    input_shape: (C, H, W) of the task's images. A network for one size only, such as a vision transformer, is made for the size H.
    pretrained: whether it has timm's trained weights; timm downloads them once. weights: a file with such weights, in place of the
    download. options: further arguments of `timm.create_model`, such as {drop_path_rate: 0.1}.

    Raises UserError where timm is missing, knows no such model, or cannot load the weights.
    """
    try:
        import timm
    except (ImportError, RuntimeError, OSError) as error:  # torchvision, which timm imports, may not fit the installed torch
        raise UserError(
            f"backbone=timm needs the package timm ({first_line(error)}); install it with: pip install 'metarun[pretrained]'."
        ) from error
    if not timm.is_model(name):
        raise UserError(f"timm has no model '{name}'.{nearest(name.split('.')[0], timm.list_models())} timm.list_models() lists them.")
    arguments: dict[str, Any] = {"num_classes": 0}
    if pretrained and weights is not None:
        arguments["pretrained_cfg_overlay"] = {"file": str(_existing(weights))}
    try:
        arguments |= _size(timm.get_pretrained_cfg(name), input_shape)
        module: nn.Module = timm.create_model(name, pretrained=pretrained, **{**arguments, **(options or {})})
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        hint = "; backbone.weights=FILE reads them from a file, backbone.pretrained=false takes random weights" if pretrained else ""
        raise UserError(f"timm cannot make the model '{name}' ({first_line(error)}){hint}.") from error
    return module


def _size(known: Any, input_shape: InputShape) -> dict[str, Any]:
    """Return the argument `img_size` for a network that takes one size only. known: timm's facts about the weights, or None."""
    fixed = getattr(known, "fixed_input_size", False)
    return {"img_size": input_shape[-1]} if fixed and len(input_shape) == 3 and input_shape[-1] != known.input_size[-1] else {}


def _existing(weights: str) -> Path:
    path = expanded(weights)
    if not path.is_file():
        raise UserError(f"backbone.weights={weights}: there is no such file.")
    return path
