"""Warnings about weights that have seen the test classes, and the licence of the weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from small import Lines, few_shot

from metarun.commands.pretraining import lines, pretraining_of
from metarun.tasks.pool import ClassPool
from metarun.tasks.sampling import FewShot


def source(data: str, *names: str) -> FewShot:
    made = few_shot()
    test = made.pools["test"]
    renamed = ClassPool(test.images, test.counts, [*names, *list(test.names)[len(names) :]])
    return dataclasses.replace(made, data=data, pools={**made.pools, "test": renamed})


def said(data: str, *names: str, pretrained_on: Any = "imagenet-1k", license: Any = None, where: str = "backbone") -> list[str]:
    node = {"pretrained_on": pretrained_on, "license": license}
    config = {"backbone": node, "task": {}} if where == "backbone" else {"backbone": {}, "task": {"backbone": node}}
    return lines(pretraining_of(config, source(data, *names), "test"))


@pytest.mark.parametrize("where", ["backbone", "task"])
@pytest.mark.parametrize("data", ["imagenet", "mini_imagenet", "my-ImageNet100"])
@pytest.mark.parametrize("weights", ["imagenet-1k", "ImageNet-21k", "laion, imagenet-12k", "ImageNet"])
def test_a_test_on_classes_of_the_pretraining_set_is_told(data: str, where: str, weights: str) -> None:
    (line,) = said(data, pretrained_on=weights, where=where)
    assert line.startswith(f"metarun: the backbone was pretrained on {weights}, which contains the test classes of {data}; a score")


def test_shared_pictures_and_shared_names_are_told() -> None:
    assert "shares images with cub" in said("cub")[0]
    (line,) = said("caltech", "volcano", "coral_reef", "gerenuk")
    assert "at least 2 of the 9 test classes have the name of one of its classes (volcano, coral_reef); the score says less" in line


@pytest.mark.parametrize(("data", "weights"), [("omniglot", "imagenet-1k"), ("imagenet", "inaturalist-2021"), ("cub", "laion")])
def test_other_data_get_no_warning(data: str, weights: str) -> None:
    assert said(data, pretrained_on=weights) == []


def test_the_licence_is_printed_and_weights_that_say_nothing_are_not_mentioned() -> None:
    assert said("omniglot", license="apache-2.0") == ["metarun: the weights of the backbone state the licence apache-2.0."]
    assert said("omniglot", pretrained_on=None, license="mit") == ["metarun: the weights of the backbone state the licence mit."]
    assert pretraining_of({"backbone": {"norm": "batch"}, "task": {}}, Lines(), "test") is None
    assert lines(None) == []


def test_the_words_of_a_file_reach_the_terminal_without_control_characters() -> None:
    assert "\x1b" not in said("omniglot", license="\x1b[2J")[0]
