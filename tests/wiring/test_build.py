"""From a config to objects: shapes are found by looking, and parts that do not fit are told in a sentence."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small import SmallConv, composed, few_shot
from torch import Tensor

from metarun import draws
from metarun.backbones.classifier import Classifier
from metarun.compute.plan import kernels_missing
from metarun.errors import UserError
from metarun.network import network_of
from metarun.wiring.build import build, build_optimizer, build_settings, evaluation_plan, start

SMALL_IMAGES = {"_target_": "small.small_images", "ways": 3, "shots": 2, "queries": 3}
SMALL_CONV = {"_target_": "small.SmallConv", "filters": 2, "norm": "batch"}


def config(*overrides: str, **groups: Any) -> dict[str, Any]:
    """A config on sinusoids with a small perceptron; `groups` replace whole groups."""
    found = composed("task=sinusoid", "backbone=mlp", "backbone.widths=[4]", "device.threads=1", *overrides)
    return {**found, **{name: copy.deepcopy(node) for name, node in groups.items()}}


def images(*overrides: str, **groups: Any) -> dict[str, Any]:
    return config(*overrides, **{"task": SMALL_IMAGES, "backbone": SMALL_CONV, **groups})


def test_shapes_come_from_the_first_episode():
    parts = build(
        images("algo=maml", backbone={"_target_": "metarun.backbones.conv4.Conv4", "input_shape": None, "filters": 2, "pooling": "stride"})
    )
    module: Any = parts.algorithm.network.module
    assert isinstance(module, Classifier)
    assert module.body.blocks[0][0].in_channels == 1
    assert module.head.out_features == 3
    assert parts.shown.support.x.shape == (6, 1, 8, 8)


def test_a_metric_method_gets_the_bare_backbone_and_a_gradient_method_a_head():
    assert isinstance(build(images("algo=protonet")).algorithm.network.module, SmallConv)
    assert isinstance(build(images("algo=maml")).algorithm.network.module, Classifier)


def test_an_algorithm_without_a_network_needs_no_backbone_parameters():
    params, state = build(images("algo=nearest")).algorithm.init(draws.key(0))
    assert (params, state) == ({}, {})


def test_the_objective_is_the_sources():
    assert build(config()).algorithm.objective.kind == "regression"
    assert build(images()).algorithm.objective.kind == "classification"


def test_the_norm_of_the_backbone_is_the_networks():
    assert build(images(backbone={**SMALL_CONV, "norm": "layer"})).algorithm.network.norm == "layer"


def test_head_init_is_for_the_head_alone_and_null_keeps_the_backbones_rule():
    """The body is drawn first, so no rule of the head changes it."""

    def drawn(**backbone: Any) -> dict[str, Tensor]:
        params: dict[str, Tensor] = build(images(backbone={**SMALL_CONV, **backbone})).algorithm.init(draws.key(0))[0]
        return params

    plain, null, normal = drawn(), drawn(head_init=None), drawn(head_init="normal")
    assert all(torch.equal(plain[name], null[name]) for name in plain)
    differ = {name for name in plain if not torch.equal(plain[name], normal[name])}
    assert differ == {"head.weight", "head.bias"}
    assert (normal["head.bias"] == 0).all()


def test_head_init_without_a_head_is_refused():
    with pytest.raises(UserError, match=r"ProtoNet has no linear head to initialise; leave out backbone\.head_init=normal"):
        build(images("algo=protonet", backbone={**SMALL_CONV, "head_init": "normal"}))


def test_the_recipe_is_no_argument():
    assert "recipe" in config("algo=reptile")["algo"]
    assert type(build(config("algo=reptile")).algorithm).__name__ == "Reptile"


def test_the_seed_decides_the_weights_and_the_global_generator_is_left_alone():
    def weights(seed: int) -> Tensor:
        parts = build(images(f"seed={seed}"))
        return start(parts, build_settings(parts))[0].params["head.weight"]

    before = torch.get_rng_state()
    one, again, other = weights(1), weights(1), weights(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_the_config_that_was_given_is_not_changed():
    given = images("algo=protonet")
    before = copy.deepcopy(given)
    build(given)
    assert given == before


def test_settings_are_the_top_level_keys_and_the_chosen_chunk():
    parts = build(config("steps=7", "tasks_per_step=3", "seed=5", "device.task_chunk=2"))
    settings = build_settings(parts)
    assert (settings.steps, settings.tasks_per_step, settings.seed, settings.plan.chunk) == (7, 3, 5, 2)


@pytest.mark.parametrize(
    ("algo", "shared"),
    [
        ("algo=protonet", True),
        ("algo=finetune algo.test_inner_steps=2", True),
        ("algo=finetune algo.test_inner_steps=2 algo.adapt_all=true", False),
        ("algo=maml", False),
        ("algo=scratch algo.max_inner_steps=2", False),
    ],
)
def test_work_says_whether_tasks_share_the_backbones_weights(algo: str, shared: bool):
    parts = build(images(*algo.split(), task={**SMALL_IMAGES, "train_labels": "global"} if "finetune" in algo else SMALL_IMAGES))
    assert [work.shared for work in parts.work.values()] == [shared, shared]


@pytest.mark.skipif(kernels_missing() is not None, reason=f"no C kernels here: {kernels_missing()}")
@pytest.mark.parametrize(("worth", "expected"), [(0.0, "c"), (1e30, "torch")])
def test_validations_use_the_kernels_of_training_and_evaluations_those_that_pay(
    worth: float, expected: str, monkeypatch: pytest.MonkeyPatch
):
    """The plan decides about the training alone, whatever an evaluation of validation episodes would choose: a run keeps its choice."""
    monkeypatch.setattr("metarun.compute.plan.C_KERNELS_FLOPS", worth)
    monkeypatch.setattr("metarun.compute.plan.C_KERNELS_SCORED_FLOPS", 1e30 - worth)
    parts = build(images("tasks_per_step=4", "steps=10", backbone={**SMALL_CONV, "filters": 16}))
    settings = build_settings(parts)
    assert settings.plan.kernels == settings.eval_plan.kernels == expected
    assert evaluation_plan(parts, 100).kernels == ("torch" if expected == "c" else "c")


def test_a_run_starts_at_step_zero_with_an_optimizer_on_its_own_parameters():
    parts = build(config("optimizer=sgd", "optimizer.lr=1.0", "optimizer.options={}"))
    position, optimizer = start(parts, build_settings(parts))
    assert (position.step, position.best, position.window) == (0, None, {})
    before = {name: value.clone() for name, value in position.params.items()}
    optimizer.update({name: torch.ones_like(value) for name, value in position.params.items()}, 0)
    assert all(torch.allclose(position.params[name], before[name] - 1.0) for name in before)


@pytest.mark.parametrize("group", ["task", "algo", "backbone", "device"])
def test_a_missing_group_is_named(group: str):
    with pytest.raises(UserError, match=f"the config has no {group}; choose one with {group}="):
        build({**config(), group: None})


def test_a_missing_optimizer_is_named():
    with pytest.raises(UserError, match="the config has no optimizer"):
        build_optimizer({"optimizer": None}, {}, 1)


def test_an_algorithm_that_cannot_do_the_task_is_a_sentence():
    with pytest.raises(UserError, match="algo ProtoNet does classification only, and this task is regression"):
        build(config("algo=protonet"))


def test_a_head_needs_as_many_ways_in_training_as_at_test():
    with pytest.raises(UserError, match=r"Maml trains a head of 5 outputs, and validation needs 3; set task\.train_ways"):
        build(images("algo=maml", task={**SMALL_IMAGES, "train_ways": 5}))
    with pytest.raises(UserError, match=r"set task\.train_ways to the value of task\.ways"):
        build(images("algo=mamlpp", task={**SMALL_IMAGES, "train_ways": 4}))
    build(images("algo=protonet", task={**SMALL_IMAGES, "train_ways": 5}))


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"task": {"_target_": "collections.OrderedDict"}}, "gives a OrderedDict, which has no `objective` and so is no task source"),
        ({"backbone": {"_target_": "collections.OrderedDict"}}, r"gives a OrderedDict; a backbone is a torch\.nn\.Module"),
        ({"backbone": {"_target_": "small.SmallConv", "channels": 5}}, r"cannot take this task's inputs of shape \(1, 8, 8\)"),
        ({"backbone": {**SMALL_CONV, "norm": "bacth"}}, "Did you mean 'batch'"),
        ({"algo": {"_target_": "metarun.algorithms.maml.Maml", "inner_rate": 1.0}}, "algo.inner_rate is not an argument"),
    ],
)
def test_parts_that_do_not_fit_are_a_sentence(groups: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        build(images(**groups))


def test_the_width_of_a_backbone_that_does_not_say_it_is_found_by_a_pass():
    network = network_of(build(images("algo=maml", backbone={"_target_": "torch.nn.Flatten"})).algorithm)
    assert network is not None
    assert network.init()[0]["head.weight"].shape == (3, 64)


def test_a_backbone_that_gives_no_vectors_is_a_sentence():
    with pytest.raises(UserError, match="it must give one vector per example"):
        build(images("algo=protonet", backbone={"_target_": "torch.nn.Identity"}))


def test_a_split_that_the_source_drew_is_written_into_the_config():
    parts = build(images("algo=maml", task={**SMALL_IMAGES, "_target_": "small.split_images", "classes": None}))
    assert parts.config["task"]["classes"] == few_shot().classes


def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> dict[str, Any]:
    """A config on eleven classes of eight images, of which c0 has twelve."""
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))
    for number in range(11):
        (tmp_path / "set" / f"c{number}").mkdir(parents=True)
        for place in range(12 if number == 0 else 8):
            Image.new("L", (8, 8), 20 * number + place).save(tmp_path / "set" / f"c{number}" / f"{place}.png")
    keys = [f"task.root={tmp_path / 'set'}", "task.image_size=8", "task.channels=1", *overrides]
    return composed("task=folder", "algo=protonet", "device.threads=1", *keys) | {"backbone": dict(SMALL_CONV)}


def test_what_a_source_chose_is_written_into_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    task = build(photographs(tmp_path, monkeypatch)).config["task"]
    chosen = {"ways": 3, "queries": 7, "train_ways": 5, "train_queries": 5, "train_shots": None, "augment": True, "left_out": None}
    assert {name: task[name] for name in chosen} == chosen
    assert [len(task["classes"][split]) for split in ("train", "val", "test")] == [5, 3, 3]


def test_an_evaluation_needs_examples_of_the_split_that_it_scores_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    typed = photographs(tmp_path, monkeypatch, "task.shots=6", "task.queries=5", "task.ways=2")
    typed["task"]["classes"] = {"train": ["c1", "c2"], "val": ["c3", "c4"], "test": ["c0", "c5"]}
    with pytest.raises(UserError) as raised:
        build(typed, scored="test")
    assert "class 'c5' has 8 images; 6 shots + 5 queries need 11" in str(raised.value)
    assert "c1" not in str(raised.value)
    typed["task"]["skip_small"] = True
    typed["task"]["classes"]["test"] = ["c0", "c5", "c6"]
    with pytest.raises(UserError, match="the test split has 1 class; 2 ways need more"):
        build(typed, scored="test")
    typed["task"] |= {"shots": 2, "train_shots": 9, "train_queries": 9}
    parts = build(typed, scored="test")
    assert parts.shown.support.x.shape == (4, 1, 8, 8)
    with pytest.raises(UserError, match="the train split has 0 classes"):
        build(typed)


def test_only_an_algorithm_that_reads_class_numbers_gets_them():
    numbers = build(images("algo=memory")).source.episode("train", 0).support.classes
    assert numbers is not None
    assert set(numbers.tolist()) <= set(few_shot().numbers["train"].tolist())
    assert build(images("algo=protonet")).source.episode("train", 0).support.classes is None
    assert build(config("algo=memory")).source.episode("train", 0).support.classes is None, "a regression has no classes"
    two = {"_target_": "metarun.tasks.mixture.mixture", "sources": {"a": SMALL_IMAGES, "b": SMALL_IMAGES}}
    assert build(images("algo=memory", task=two)).source.episode("train", 0).support.classes is not None


def test_a_source_without_class_numbers_is_said_in_a_sentence(caplog: pytest.LogCaptureFixture):
    build(images("algo=protonet", task={"_target_": "small.unnumbered_images"}))
    assert caplog.text == ""
    build(images("algo=memory", task={"_target_": "small.unnumbered_images"}))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        "Unnumbered deals episodes without class numbers (`Examples.classes`), so Memory cannot tell an episode's own classes from others"
    )
