"""Exports: the weights and the description of a backbone, read with plain PyTorch."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small import SmallConv, composed, few_shot
from small_runs import CONV, SHORT, image_config

from metarun import draws
from metarun.commands.export import DESCRIPTION, NORMS, WEIGHTS, _pretrained, backbone_of, export, weights_of
from metarun.commands.model import Model, load
from metarun.commands.train import train
from metarun.errors import UserError
from metarun.layers.norm import MODES, NormPass
from metarun.network import network_of, running_statistics
from metarun.wiring.around import Around

ROOT = Path(__file__).parents[2]


def trained(folder: Path, algo: str, norm: str = "running") -> Path:
    config = image_config(f"algo={algo}", "steps=2", "eval_every=0")
    train({**config, "backbone": {**CONV, "norm": norm}}, folder)
    return folder


def embedded(model: Model, x: torch.Tensor) -> torch.Tensor:
    """Return metarun's embedding with the running statistics."""
    network = network_of(model.parts.algorithm)
    assert network is not None
    module = network.module
    given = NormPass("given", given=running_statistics(model.trained.state))
    seen: list[torch.Tensor] = []
    hook = backbone_of(model).register_forward_hook(lambda _module, _x, out: seen.append(out))
    with torch.no_grad():
        network.forward(network.complete(model.trained.params, model.trained.state), x, given)
    hook.remove()
    assert module is not None
    return seen[0]


@pytest.mark.parametrize("algo", ["protonet", "maml"], ids=["without a head", "with a head"])
def test_the_exported_weights_give_metaruns_embeddings_in_a_plain_module(tmp_path: Path, algo: str):
    model = load(trained(tmp_path, algo), trust=["small"])
    plain = SmallConv(filters=2)
    plain.load_state_dict(weights_of(backbone_of(model), model))
    x = few_shot().episode("test", 0).query.x
    assert not torch.equal(plain.first_norm.running_mean, torch.zeros(2)), "the statistics are those of the training"  # type: ignore[arg-type]
    torch.testing.assert_close(plain.eval()(x), embedded(model, x), rtol=1e-5, atol=1e-6)


def test_with_norm_batch_a_plain_module_in_train_mode_gives_metaruns_embeddings(tmp_path: Path):
    model = load(trained(tmp_path, "protonet", "batch"), trust=["small"])
    support = few_shot().episode("test", 0).support
    plain = SmallConv(filters=2)
    plain.load_state_dict(weights_of(backbone_of(model), model))
    centres = model.trained.algorithm.adapt(model.trained.params, model.trained.state, support, draws.key(0, "x")).centres
    z = plain.train()(support.x)
    torch.testing.assert_close((support.y.T @ z) / support.y.sum(dim=0)[:, None], centres, rtol=1e-4, atol=1e-5)


def test_every_mode_of_normalisation_has_its_word():
    assert set(NORMS) == set(MODES)


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stand in for safetensors: note the tensors that an export saves."""
    noted: dict[str, Any] = {}
    monkeypatch.setattr("metarun.commands.export._saver", lambda: lambda tensors, about: noted.update(tensors) or b"weights")
    return noted


def test_an_export_describes_what_another_program_needs(tmp_path: Path, saved: dict[str, Any]):
    run = trained(tmp_path / "run", "protonet")
    about = export(run, tmp_path / "out", ["small"])
    assert about == json.loads((tmp_path / "out" / DESCRIPTION).read_text(encoding="utf-8"))
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == b"weights"
    assert set(saved) == set(SmallConv(filters=2).state_dict())
    assert about["backbone"] == {"class": "small.SmallConv", "arguments": {"filters": 2}, "mode": "eval"}
    assert {**about["inputs"], "how": ""} == {"kind": "images", "size": 8, "channels": 1, "inverted": False, "how": ""}
    assert about["inputs"]["how"].endswith("divided by 255")
    assert (about["input_shape"], about["algorithm"]) == ([1, 8, 8], "metarun.algorithms.protonet.ProtoNet")
    assert about["validation"]["metric"] == "accuracy"
    assert about["classes"]["train"] == [f"train{number}" for number in range(9)]


def test_an_export_replaces_no_file_and_names_what_cannot_be_exported(tmp_path: Path, saved: dict[str, Any]):
    run = trained(tmp_path / "run", "protonet")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / DESCRIPTION).write_text("mine")
    with pytest.raises(UserError, match="is there already; choose another folder"):
        export(run, tmp_path / "out", ["small"])
    assert (tmp_path / "out" / DESCRIPTION).read_text() == "mine"
    with pytest.raises(UserError, match="names several runs"):
        export([run, run], tmp_path / "both", ["small"])
    train(composed(*SHORT, "task=sinusoid", "algo=cnp", "steps=1", "task.queries=5"), tmp_path / "cnp")
    with pytest.raises(UserError, match="Cnp has no backbone to export"):
        export(tmp_path / "cnp", tmp_path / "other")


def test_without_safetensors_the_sentence_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(UserError, match=re.escape("pip install 'metarun[export]'")):
        export(tmp_path, tmp_path / "out")


def blocks(page: str) -> list[str]:
    """Return the Python of a page of the documentation that reads an export."""
    return [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "load_file" in block]


def test_the_documented_lines_read_an_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("safetensors", reason="safetensors is not installed: pip install 'metarun[export]'")
    config = composed(*SHORT, "task=glyphs", "algo=protonet", "steps=1", "eval_every=0")
    train(config, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "DIR")
    model = load(tmp_path / "run", device="cpu")
    x = torch.rand(5, 1, 28, 28)
    monkeypatch.chdir(tmp_path)
    found = blocks((ROOT / "docs" / "using.md").read_text(encoding="utf-8"))
    assert len(found) == 2
    for block in found:
        assert len([line for line in block.splitlines() if line.strip()]) <= 14
        names: dict[str, Any] = {"x": x}
        exec(block, names)
        torch.testing.assert_close(names["z"].detach(), embedded(model, x), rtol=1e-4, atol=1e-5)


def test_a_pretrained_backbone_has_its_removed_layers_and_the_scale_of_its_channels_and_no_argument_of_metaruns():
    assert _pretrained(Around(frozen=True, without="fc", mean=[0.5], std=[0.25], license="mit")) == {
        "without": ["fc"],
        "mean": [0.5],
        "std": [0.25],
        "license": "mit",
    }
    assert _pretrained(Around()) == {}
