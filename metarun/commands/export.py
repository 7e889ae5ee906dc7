"""What `metarun export` does: the weights of a run's backbone and their description, for other programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import metarun
from metarun.backbones.classifier import Classifier
from metarun.commands.model import Model, load
from metarun.errors import UserError
from metarun.files.paths import expanded
from metarun.files.writing import write_text, write_whole
from metarun.network import BUFFER, FROZEN, RUNNING, network_of
from metarun.wiring.around import Around, divided
from metarun.wiring.instantiate import TARGET

WEIGHTS, DESCRIPTION = "backbone.safetensors", "model.json"

NORMS = {
    "running": ("eval", "the running statistics in the file, as in metarun's validations and tests; call backbone.eval()"),
    "batch": ("train", "the statistics of the batch, so an embedding depends on the other examples of the call; call backbone.train()"),
    "support": ("train", "the statistics of the support set, for queries too; call backbone.train() for the support set alone"),
    "reptile": ("train", "the statistics of the support set together with one query; call backbone.train() for such a batch"),
    "layer": (None, "the values of each example alone, which nn.BatchNorm does not compute: replace it by nn.GroupNorm(1, channels)"),
    "instance": (None, "each channel of an example alone, which nn.BatchNorm does not compute: replace it by nn.InstanceNorm"),
    "none": (None, "no statistics, only scale and shift, which nn.BatchNorm does not compute: replace it by a layer with these two"),
}
"""norm -> the mode of the module that computes metarun's embeddings, None where no mode does; and the statistics in words."""
NO_BATCH = {
    False: "none, since the backbone has no batch normalisation that learns",
    True: "those of the pretraining, in the file, since the backbone is frozen; call backbone.eval()",
}
"""The same for a network whose batch normalisation does not depend on `norm`, by whether the network is frozen."""
TRACKED = "; the running statistics in the file come from the training, and no score was measured with them"


def export(run: Any, out: str | Path, trust: Any = ()) -> dict[str, Any]:
    """Write the backbone of a run into a folder: `backbone.safetensors` and `model.json`; return the content of `model.json`.

    run: a run folder or a checkpoint. out: a folder that has neither of the two files; it is made. trust: as in `metarun eval`.

    Raises UserError where safetensors is missing, where a file is there already, and where the algorithm has no backbone.
    """
    save = _saver()
    folder = expanded(out)
    for name in (WEIGHTS, DESCRIPTION):
        if (folder / name).exists():
            raise UserError(f"out={out}: {folder / name} is there already; choose another folder, or move the file away.")
    if isinstance(run, (list, tuple)):
        raise UserError("checkpoint=[…] names several runs; export them one by one.")
    model = load(run, trust, device="cpu")
    backbone = backbone_of(model)
    tensors = weights_of(backbone, model)
    about = description(model, backbone)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / WEIGHTS, save(tensors, {"format": "pt"}))
        write_text(folder / DESCRIPTION, json.dumps(about, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError(f"out={out}: {error.filename or folder} cannot be written ({error.strerror}); choose another folder.") from error
    return about


def _saver() -> Any:
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise UserError("metarun export needs the package safetensors; install it with pip install 'metarun[export]'.") from error
    return save


def backbone_of(model: Model) -> nn.Module:
    """Return the module that embeds inputs; UserError where the algorithm has none."""
    network = network_of(model.parts.algorithm)
    if network is None:
        raise UserError(f"{type(model.parts.algorithm).__name__} has no backbone to export; it uses none, or makes its own network.")
    module = network.module
    return module.body if isinstance(module, Classifier) else module


def weights_of(backbone: nn.Module, model: Model) -> dict[str, Tensor]:
    """Return the tensors of the backbone's `state_dict` with the values of the checkpoint, running statistics included."""
    held = {**_below(model.trained.state, FROZEN), **_below(model.trained.state, BUFFER), **model.trained.params}
    running = {}
    for name, value in _below(model.trained.state, RUNNING).items():
        layer, _, kind = name.rpartition(".")
        running[f"{layer}.{ {'mean': 'running_mean', 'var': 'running_var', 'count': 'num_batches_tracked'}[kind] }"] = value
    known = {**held, **running}
    tensors = {}
    for name, value in backbone.state_dict().items():
        found = known.get(f"body.{name}", known.get(name))
        if found is None and not name.endswith("num_batches_tracked"):
            raise UserError(f"the checkpoint has no tensor '{name}' of the backbone, so the backbone cannot be exported.")
        tensors[name] = (value if found is None else found).detach().to(value.dtype).contiguous().clone()
    return tensors


def description(model: Model, backbone: nn.Module) -> dict[str, Any]:
    """Return the content of `model.json`: plain values."""
    stored = model.members[0]
    config = stored.config
    network = network_of(model.parts.algorithm)
    assert network is not None
    rest, around = divided(config["backbone"])
    node = {key: value for key, value in rest.items() if key != TARGET}
    if "input_shape" in node:
        node["input_shape"] = list(model.shapes.inputs)
    width = getattr(backbone, "out_features", None)
    options = config.get("options") or {}
    mode, statistics = NORMS[network.norm] if network.norms else ("eval", NO_BATCH[around.frozen])
    statistics += TRACKED if mode == "train" else ""
    return {
        "metarun": metarun.__version__,
        "weights": WEIGHTS,
        "backbone": {"class": config["backbone"]["_target_"], "arguments": node, "mode": mode, **_pretrained(around)},
        "input_shape": list(model.shapes.inputs),
        "out_features": width if isinstance(width, int) else None,
        "inputs": {**(stored.preparation or {"kind": "arrays"}), **_told(stored.preparation)},
        "normalisation": {"norm": network.norm if network.norms else None, "statistics": statistics},
        "algorithm": options.get("algo") or config["algo"]["_target_"],
        "task": options.get("task") or config["task"]["_target_"],
        "classes": config["task"].get("classes") or {"train": list(stored.origins)},
        "validation": _scores(model, stored.best),
        "step": stored.step,
        "config": config,
    }


def _pretrained(around: Around) -> dict[str, Any]:
    """Return the keys of a pretrained backbone that are set: the removed layers, the scale of the channels, and facts about the weights."""
    without = [around.without] if isinstance(around.without, str) else around.without
    said = {"without": without, "mean": around.mean, "std": around.std, "pretrained_on": around.pretrained_on, "license": around.license}
    return {key: value for key, value in said.items() if value is not None}


def _told(preparation: Mapping[str, Any]) -> dict[str, str]:
    """Return in words how images become inputs; nothing for other inputs."""
    if preparation.get("kind") != "images":
        return {}
    how = "turned upright by EXIF, blended onto white, the shorter side resized to `size` (Lanczos), the centre cropped, divided by 255"
    return {"how": f"{how}, black and white exchanged" if preparation["inverted"] else how}


def _scores(model: Model, best: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the best validation of the run; None before the first one."""
    if best is None:
        return None
    return {"metric": model.parts.algorithm.objective.metric, "mean": best["mean"], "step": best["step"]}


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
