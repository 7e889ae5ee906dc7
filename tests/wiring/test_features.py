"""The nodes of `task=features`: its images, its backbone, and what a checkpoint keeps of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import own_modules
import pytest
import torch
from small import SmallConv, composed, few_shot
from torch import nn

from metarun.errors import UserError
from metarun.tasks.preparing.feature_preparation import FeaturePreparation
from metarun.tasks.preparing.preparation import preparation_by, preparation_of
from metarun.tasks.sampling import FewShot
from metarun.wiring.build import build_source
from metarun.wiring.checking import check_values
from metarun.wiring.features import fill_drawn, has_embedder, with_network
from metarun.wiring.places import check_targets
from metarun.wiring.stored import accepted


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))


def config_of(**backbone: Any) -> dict[str, Any]:
    config = composed("task=features", "task.backbone.name=resnet18", "algo=simpleshot", "backbone=identity", "task.shots=2", "task.ways=3")
    config["task"]["images"] = {"_target_": "small.small_images", "ways": 2}
    config["task"]["backbone"] = {"_target_": "own_modules.untouched", **backbone}
    config["task"]["train_ways"] = config["task"]["train_queries"] = 3
    config["task"]["queries"] = 3
    return config


def test_the_option_composes_with_one_sampling_for_features_and_images() -> None:
    task = composed("task=features", "task.backbone.name=resnet18", "task.shots=7")["task"]
    assert task["shots"] == task["images"]["shots"] == 7
    assert has_embedder(task)
    assert not has_embedder({**task, "images": None})


def loaded_conv() -> nn.Module:
    torch.manual_seed(0)
    return SmallConv()


@pytest.mark.parametrize("frozen", [{}, {"frozen": False}])
def test_the_embeddings_are_those_of_the_frozen_module_with_its_normalised_inputs(frozen: dict[str, bool]) -> None:
    own_modules.CURRENT[:] = [loaded_conv]
    config = config_of(mean=[0.5], std=[0.25], **frozen)
    check_values(config)
    source = build_source(config)
    assert isinstance(source, FewShot)
    x = few_shot(ways=3, shots=2, queries=3).episode("test", 1).support.x
    with torch.no_grad():
        expected = loaded_conv().eval()((x - 0.5) / 0.25)
    torch.testing.assert_close(source.episode("test", 1).support.x, expected, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_gets_its_network_back_and_one_with_other_weights_is_refused() -> None:
    own_modules.CURRENT[:] = [loaded_conv]
    config = config_of(mean=[0.5])
    source = build_source(config)
    prepared = preparation_by(source)
    assert isinstance(prepared, FeaturePreparation)
    read = preparation_of(prepared.stored(), prepared.shape, 0)
    whole = with_network(read, config, "cpu")
    pixels = few_shot().pools["test"].images[:3]
    torch.testing.assert_close(whole.inputs(pixels.numpy()[:, 0]), source.pools["test"].images[:3])  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="are not those of the training"):
        with_network(read, config_of(mean=[0.6]), "cpu")
    own_modules.CURRENT[:] = [SmallConv]
    with pytest.raises(UserError, match="are not those of the training"):
        with_network(read, {**config, "seed": 99}, "cpu")
    with pytest.raises(UserError, match="names no network"):
        with_network(read, composed(), "cpu")


def test_a_wrong_key_of_the_backbone_is_refused_before_any_image_is_read() -> None:
    config = config_of(std=[-1.0])
    with pytest.raises(UserError, match=r"std.* a number above 0"):
        check_values(config)


def test_a_classification_layer_and_a_module_without_vectors_are_refused() -> None:
    own_modules.CURRENT[:] = [lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 1000))]
    with pytest.raises(UserError, match=r"ends with the layer '1' of 1000 outputs"):
        build_source(config_of())
    own_modules.CURRENT[:] = [lambda: nn.Conv2d(1, 2, 3)]
    with pytest.raises(UserError, match=r"it must give one vector per example"):
        build_source(config_of())


def test_a_checkpoint_may_name_the_shipped_parts_and_nothing_else_in_these_places() -> None:
    config = composed("task=features", "task.backbone.name=resnet18")
    check_targets(config)
    for key, target in (("images", "os.system"), ("backbone", "metarun.tasks.folder.folder")):
        changed = {**config, "task": {**config["task"], key: {"_target_": target}}}
        with pytest.raises(UserError, match=r"nothing was run"):
            check_targets(changed)


def test_a_checkpoint_downloads_no_weights_for_the_backbone_that_it_holds() -> None:
    config = composed("backbone=timm", "backbone.name=resnet18")
    assert config["backbone"]["pretrained"] is True
    assert accepted(config)["backbone"]["pretrained"] is False
    assert config["backbone"]["pretrained"] is True


def test_a_drawn_split_is_written_into_the_node_of_the_images() -> None:
    node: dict[str, Any] = {"classes": None, "ways": 2}
    fill_drawn(node, few_shot())
    assert node["classes"] == few_shot().classes
    given: dict[str, Any] = {"classes": {"train": ["a"]}}
    fill_drawn(given, few_shot())
    assert given == {"classes": {"train": ["a"]}}
