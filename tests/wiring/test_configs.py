"""Every option of every group composes, resolves and builds, and every experiment runs: found by listing the folders."""

from __future__ import annotations

import functools
import json
import math
import os
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from option_rows import CONFIGS, GROUPS, config_of, options, rows
from PIL import Image
from small import composed, kinds_of, words_of

from metarun import testing
from metarun.commands.train import train
from metarun.errors import UserError
from metarun.tasks import named_splits, omniglot
from metarun.tasks.pictures.published import published
from metarun.wiring.build import build, build_optimizer, build_settings, build_source, start
from metarun.wiring.instantiate import instantiate

LEAST_PICTURES = ("task.queries=1", "task.train_queries=1")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Keep drawn pictures apart from the user's, but decoded Omniglot where it is: reading it takes long. Read it once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(omniglot, "_read", functools.cache(omniglot._read))
        if not os.environ.get("METARUN_DATA"):
            patch.setenv("METARUN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_the_groups_were_found():
    assert {"algo", "backbone", "device", "experiment", "logger", "optimizer", "task"} <= set(GROUPS)


def test_the_rows_hold_every_option_once():
    """Those of `algo` and `experiment` compose and resolve in the tests that build them."""
    listed = [(group, option) for row in rows() for group, option in row.items()]
    assert sorted(listed) == [(group, option) for group in GROUPS if group not in ("algo", "experiment") for option in options(group)]


@pytest.mark.parametrize("row", rows(), ids=lambda row: "-".join(row.values()))
def test_every_option_composes_and_resolves(row: dict[str, str]):
    config = resolved(config_of(row))
    for group, option in row.items():
        header = yaml.safe_load((CONFIGS / f"{group}/{option}.yaml").read_text(encoding="utf-8"))
        assert isinstance(config[group], dict)
        assert header.get("_target_") in (None, config[group].get("_target_"))


def resolved(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config after a check that no interpolation is left open in it: such a one would be text with a dollar sign."""
    assert "${" not in json.dumps(config, default=str)
    return config


@pytest.mark.parametrize("option", options("algo"))
def test_every_algorithm_builds_and_starts(option: str):
    config = resolved(composed(*words_of(option)))
    config["backbone"]["widths"] = [4]
    config["device"]["threads"] = 1
    if "regression" not in kinds_of(option):
        labels = config["algo"].get("recipe", {}).get("train_labels", "episode")
        config["task"] = {"_target_": "small.small_images", "train_labels": labels}
        config["backbone"] = {"_target_": "small.SmallConv"}
    parts = build(config)
    position, _ = start(parts, build_settings(parts))
    assert position.step == 0
    assert all(torch.isfinite(value).all() for value in position.params.values())
    decayed = {name for name in position.params if not any(fnmatchcase(name, each) for each in config["optimizer"]["undecayed"])}
    assert all(name.endswith(("weight", "bias", "weight_input", "weight_hidden", "label", "prior", "norm")) for name in decayed), (
        "decay is for weights"
    )


@pytest.mark.parametrize("option", options("backbone"))
def test_every_backbone_builds_for_images(option: str):
    if option == "timm":
        pytest.importorskip("timm", reason="timm is not installed (pip install 'metarun[pretrained]')")
    words = ["backbone.name=test_resnet", "backbone.pretrained=false"] if option == "timm" else []
    config = composed("algo=maml", f"backbone={option}", *words, "device.threads=1")
    config["task"] = {"_target_": "small.large_images"}
    if option == "embeddings":
        config["backbone"]["columns"] = [
            ["pixels", "several", math.prod(build_source(config).episode("train", 0).support.x.shape[1:]), "item"]
        ]
    if option == "resnet12":
        config["backbone"]["widths"] = [4, 4, 4, 4]
    if option == "conv6":  # with its strides it needs 43x43
        config["backbone"] |= {"strides": [1] * 6, "filters": 4}
    if option == "gated_conv":
        config["backbone"] |= {"filters": 4, "gate_filters": 4}
    parts = build(config)
    testing.check_finite_gradients(parts.algorithm, parts.source)


def small_table(folder: Path) -> list[str]:
    rows = [f"t{task},{0.1 * task + row},{row * task % 7}" for task in range(12) for row in range(8)]
    (folder / "table.csv").write_text("\n".join(["task,x,y", *rows]) + "\n")
    return [f"task.path={folder / 'table.csv'}", "task.task_column=task", "task.target=y", "task.shots=3", "task.queries=2"]


def small_folder(folder: Path) -> list[str]:
    for number in range(30):
        (folder / f"pictures/class{number}").mkdir(parents=True)
        for picture in range(2):
            Image.new("RGB", (6, 6), (8 * number, 100 * picture, 0)).save(folder / f"pictures/class{number}/{picture}.png")
    return [f"task.root={folder / 'pictures'}", "task.image_size=6", *LEAST_PICTURES]


def small_features(folder: Path) -> list[str]:
    root, size, *sampling = small_folder(folder)
    return ["backbone@task.backbone=identity", root.replace("task.", "task.images."), size.replace("task.", "task.images."), *sampling]


def small_copy(folder: Path, name: str) -> list[str]:
    """Write a copy of a published set with two empty images of each class, or CIFAR-100 with two images of each class."""
    if name in ("cifar_fs", "fc100"):
        for part in ("train.bin", "test.bin"):
            (folder / part).write_bytes(b"".join(bytes([0, number]) + 3072 * bytes([number]) for number in range(100)))
        return [f"task.root={folder}", *LEAST_PICTURES]
    for cls in published(name).classes:
        (folder / cls).mkdir()
        for picture in range(2):
            (folder / f"{cls}/{picture}.png").touch()
    return [f"task.root={folder}", "task.image_size=6", *LEAST_PICTURES]


@pytest.mark.parametrize("option", options("task"))
def test_every_task_deals_numbered_episodes(option: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    if option == "omniglot":
        request.getfixturevalue("omniglot_root")
    monkeypatch.setattr(named_splits, "read_images", lambda files, **_: torch.randint(256, (len(files.names), 3, 6, 6), dtype=torch.uint8))
    words = {
        "table": lambda: small_table(tmp_path),
        "folder": lambda: small_folder(tmp_path),
        "features": lambda: small_features(tmp_path),
        "glyphs": lambda: ["task.samples=2", *LEAST_PICTURES],
        **{name: partial(small_copy, tmp_path, name) for name in ("mini_imagenet", "tiered_imagenet", "cub", "cifar_fs", "fc100")},
    }.get(option, list)()
    config = composed(f"task={option}", *words)
    testing.check_source(build_source(config))


@pytest.mark.parametrize("option", options("device"))
def test_every_device_is_chosen_or_refused_with_a_sentence(option: str):
    config = composed("task=sinusoid", "backbone=mlp", f"device={option}", "device.threads=1")
    if option == "cuda" and not torch.cuda.is_available():
        with pytest.raises(UserError, match="torch finds no CUDA device here"):
            build(config)
        return
    assert build_settings(build(config)).plan.chunk >= 1


@pytest.mark.parametrize("option", options("optimizer"))
def test_every_optimizer_steps(option: str):
    weight = torch.ones(2)
    build_optimizer(composed(f"optimizer={option}"), {"w": weight}, steps=10).update({"w": torch.ones(2)}, 0)
    assert (weight < 1.0).all()


@pytest.mark.parametrize("option", options("logger"))
def test_every_logger_writes_metrics(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if option in ("wandb", "mlflow", "trackio"):
        pytest.skip("tests/records/loggers tests the loggers of optional packages, each in its offline mode")
    with instantiate(composed(f"logger={option}")["logger"], name="logger", folder=tmp_path) as tracker:
        tracker.log(1, {"train/loss": 2.0})
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["train/loss"] == 2.0


def test_the_baseline_of_an_experiment_with_a_memory_differs_in_the_memory_alone():
    with_memory, without = (composed(f"experiment={name}") for name in ("omniglot_mann", "omniglot_mann_lstm"))
    assert (with_memory["algo"].pop("slots"), without["algo"].pop("slots")) == (32, 0)
    without["algo"]["recipe"]["lr"] = with_memory["algo"]["recipe"]["lr"]  # not read, since the experiment says the rate
    assert without == with_memory


def is_other_size(option: str) -> bool:
    """Whether an experiment has a sibling that goes through the same code: on Omniglot with 5 ways and 1 shot, on MovieLens with MeLU."""
    if option.startswith("movielens_"):
        return option != "movielens_melu"
    size, _, method = option.removeprefix("omniglot_").partition("_")
    return size in ("5w5s", "20w1s", "20w5s") and f"omniglot_5w1s_{method}" in options("experiment")


SMALL_RUN = {"steps": 2, "tasks_per_step": 2, "eval_every": 0, "save_every": 0, "eval_episodes": 1}


@pytest.mark.parametrize("option", [option for option in options("experiment") if not is_other_size(option)])
def test_every_experiment_runs_two_steps(option: str, tmp_path: Path, request: pytest.FixtureRequest):
    train(experiment(option, request), tmp_path / "run")
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["steps"] == 2
    assert report["best"]["score"] is not None


@pytest.mark.parametrize("option", [option for option in options("experiment") if is_other_size(option)])
def test_every_experiment_of_another_size_builds(option: str, request: pytest.FixtureRequest):
    parts = build(config := experiment(option, request))
    assert build_settings(parts).steps == 2
    if option.startswith("movielens_"):
        assert parts.algorithm.objective.kind == "regression"
        return
    ways, shots = config["task"]["ways"], config["task"]["shots"]
    assert len(parts.source.episode("test", 0).support.x) == ways * shots


def experiment(option: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the config of an experiment with a short run, a smaller network and fewer pictures; skip it where its data are missing."""
    config = resolved(composed(f"experiment={option}")) | SMALL_RUN | {"logger": composed("logger=jsonl")["logger"]}
    config["device"]["threads"] = 1
    if "train_steps" in config["algo"]:
        config["algo"]["train_steps"] = SMALL_RUN["steps"]
    if any("omniglot" in each.get("_target_", "") for each in (config["task"], config["task"].get("source") or {})):
        request.getfixturevalue("omniglot_root")
    if config["task"].get("path") is not None and not Path(config["task"]["path"]).exists():
        pytest.skip(f"{config['task']['path']} is missing; METARUN_DATA names the folder of the data")
    if "glyphs" in (config["task"].get("sources") or {}):
        small_mixture(config["task"], request)
    if "train_queries" in config["task"]:
        config["task"] |= {"queries": 1, "train_queries": 1}
    if "samples" in config["task"]:
        config["task"]["samples"] = 2
    if "per_class" in config["task"]:  # a stream
        config["task"] |= {"classes": 4, "val_classes": 4, "per_class": 2, "held_out": 1, "remember": 4, "lengths": [2, 4]}
        config["task"] |= {name: 2 for name in ("train_per_class",) if name in config["task"]}
    if "filters" in config["backbone"]:
        config["backbone"]["filters"] = 4
    if "gate_filters" in config["backbone"]:
        config["backbone"]["gate_filters"] = 4
    if "test_inner_steps" in config["algo"]:
        config["algo"]["test_inner_steps"] = 2
    return config


def small_mixture(task: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """Give a mixture of image sets fewer pictures of each letter, Omniglot itself, and a folder of tiny photographs."""
    request.getfixturevalue("omniglot_root")
    pictures = small_folder(request.getfixturevalue("tmp_path"))[0].removeprefix("task.root=")
    task["sources"]["glyphs"]["samples"] = 2
    task["sources"]["caltech101"] |= {"root": pictures, "shots": 1}
    task["train_ways"] = 5
