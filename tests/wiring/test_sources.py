"""The sources of a mixture, before and after they are built."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from small import composed

from metarun.errors import UserError
from metarun.wiring.build import build_source
from metarun.wiring.sources import with_sources

PICTURES = ("+task@task.sources.a=folder", "+task@task.sources.b=folder", "task.only=[a,b]", "task.queries=1", "task.train_queries=1")


def pictures(folder: Path, name: str, classes: int = 15, images: int = 2) -> str:
    for number in range(classes):
        (folder / name / f"class{number}").mkdir(parents=True)
        for picture in range(images):
            Image.new("RGB", (9, 9), (8 * number, 100 * picture, 0)).save(folder / name / f"class{number}/{picture}.png")
    return str(folder / name)


def composed_pictures(folder: Path, *words: str) -> dict:
    roots = [f"task.sources.{name}.root={pictures(folder, name)}" for name in "ab"]
    sizes = ["task.ways=2", "task.train_ways=2", "task.train_shots=1", "task.image_size=6", "task.channels=1"]
    return composed("task=mixture", *PICTURES, *roots, *sizes, *words)


def test_image_sources_read_their_images_at_the_shape_of_the_mixture_and_keep_their_split(tmp_path: Path):
    config = composed_pictures(tmp_path)
    source = build_source(config)
    assert source.episode("train", 0).support.x.shape == (2, 1, 6, 6)
    nodes = config["task"]["sources"]
    assert (list(nodes), config["task"]["only"], nodes["a"]["image_size"], nodes["a"]["channels"]) == (["a", "b"], None, 6, 1)
    assert nodes["a"]["classes"] == source.sources["a"].classes
    assert source.origins("test")[0].startswith("a/")


def test_a_chosen_source_is_the_only_one_that_is_read(tmp_path: Path):
    config = composed_pictures(tmp_path)
    config["task"]["sources"]["b"]["root"] = str(tmp_path / "gone")
    config["task"]["only"] = ["a"]
    assert list(build_source(config).sources) == ["a"]


def test_an_evaluation_needs_the_images_of_its_own_split_only(tmp_path: Path):
    """With 2 shots, a class of 3 images has one query; the training asks for 3 shots, which no class has."""
    config = composed_pictures(tmp_path)
    config["task"]["train_shots"] = 3
    source = build_source(config, scored="test")
    assert source.episode("test", 0).support.y.shape == (2, 2)
    with pytest.raises(UserError, match="too few images"):
        source.episode("train", 0)


def test_the_error_of_a_source_names_the_keys_of_this_source(tmp_path: Path):
    config = composed("task=mixture", *PICTURES)
    with pytest.raises(UserError, match=r"task=folder needs task.sources.a.root=DIR"):
        build_source(config)


def test_features_are_no_source():
    node = {"_target_": "metarun.tasks.features.features", "images": {}, "backbone": {}}
    task = {"_target_": "metarun.tasks.mixture.mixture", "sources": {"f": node}}
    with pytest.raises(UserError, match="the source 'f' of the mixture is task=features"):
        with_sources(task)


def test_a_stream_is_no_source():
    task = {"_target_": "metarun.tasks.mixture.mixture", "sources": {"s": {"_target_": "metarun.tasks.stream.Streams"}}}
    with pytest.raises(UserError, match="the source 's' of the mixture is task=stream, which is scored class by class"):
        with_sources(task)


def test_an_unknown_source_is_answered_with_the_nearest_name():
    config = composed("task=mixture", "task.only=[lien]")
    with pytest.raises(UserError, match=r"has no source 'lien'; it has sinusoid, line, quadratic. Did you mean 'line'"):
        build_source(config)
    with pytest.raises(UserError, match=r"it has sinusoid, line, quadratic. For a source that it lacks, give task=mixture too.$"):
        build_source(composed("task=mixture", "task.only=[omniglot]"))


def test_a_value_of_the_mixture_does_not_reach_functions_before_they_are_built():
    """A function source follows the number of shots with its training queries, which it can only do when it is built."""
    source = build_source(composed("task=mixture", "task.shots=3"))
    assert [len(part.x) for part in source.episode("train", 0)] == [3, 3]
    assert [len(part.x) for part in source.episode("val", 0)] == [3, 100]
