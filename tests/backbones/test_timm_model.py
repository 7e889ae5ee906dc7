"""timm's models, with a stub in the place of timm; and with timm itself where it is installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from metarun.backbones.timm_model import timm_model
from metarun.errors import UserError


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Put a timm of two models in place, and return the arguments of its `create_model`."""
    seen: list[dict[str, Any]] = []

    def create_model(name: str, **arguments: Any) -> nn.Module:
        seen.append({"name": name, **arguments})
        if arguments["pretrained"] and "pretrained_cfg_overlay" not in arguments:
            raise OSError("Name or service not known")
        return nn.Flatten()

    stub: Any = ModuleType("timm")
    stub.create_model = create_model
    stub.is_model = lambda name: name.split(".")[0] in ("resnet18", "vit_tiny")
    stub.list_models = lambda: ["resnet18", "vit_tiny"]
    stub.get_pretrained_cfg = lambda name: SimpleNamespace(fixed_input_size=name == "vit_tiny", input_size=(3, 224, 224))
    monkeypatch.setitem(sys.modules, "timm", stub)
    return seen


def test_a_model_has_no_classification_layer_and_the_size_of_the_images_where_it_takes_one_size_only(calls: list[dict[str, Any]]) -> None:
    timm_model(input_shape=(3, 84, 84), name="resnet18", pretrained=False)
    timm_model(input_shape=(3, 84, 84), name="vit_tiny", pretrained=False, options={"drop_path_rate": 0.1})
    timm_model(input_shape=(3, 224, 224), name="vit_tiny", pretrained=False)
    plain = {"pretrained": False, "num_classes": 0}
    assert calls[0] == {"name": "resnet18", **plain}
    assert calls[1] == {"name": "vit_tiny", **plain, "img_size": 84, "drop_path_rate": 0.1}
    assert calls[2] == {"name": "vit_tiny", **plain}


def test_weights_come_from_a_file_where_one_is_named(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "weights.pth").touch()
    timm_model(input_shape=(3, 84, 84), name="resnet18", weights=str(tmp_path / "weights.pth"))
    assert calls[0]["pretrained_cfg_overlay"] == {"file": str(tmp_path / "weights.pth")}
    with pytest.raises(UserError, match=r"backbone\.weights=/nowhere: there is no such file\."):
        timm_model(input_shape=(3, 84, 84), name="resnet18", weights="/nowhere")


def test_an_unknown_model_and_a_download_that_fails_get_a_sentence(calls: list[dict[str, Any]]) -> None:
    with pytest.raises(UserError, match=r"timm has no model 'resnet81'\. Did you mean 'resnet18'\?"):
        timm_model(input_shape=(3, 84, 84), name="resnet81")
    with pytest.raises(UserError, match=r"'resnet18' \(Name or service not known\); backbone\.weights=FILE .* random weights\."):
        timm_model(input_shape=(3, 84, 84), name="resnet18")


def test_without_timm_the_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"needs the package timm .*; install it with: pip install 'metarun\[pretrained\]'\."):
        timm_model(input_shape=(3, 84, 84), name="resnet18")


def test_a_torchvision_that_does_not_fit_torch_gets_the_same_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"needs the package timm \(operator torchvision::nms does not exist\)"):
        timm_model(input_shape=(3, 84, 84), name="resnet18")


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed (pip install 'metarun[pretrained]')")
@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_models_of_timm_give_vectors_for_images_of_84_pixels(name: str) -> None:
    module = timm_model(input_shape=(3, 84, 84), name=name, pretrained=False)
    assert module.eval()(torch.rand(2, 3, 84, 84)).dim() == 2
