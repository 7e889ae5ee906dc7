"""The image source inside of `task=stream`, from its node to its messages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image
from small import composed

from metarun.errors import UserError
from metarun.tasks.pool import SPLITS
from metarun.tasks.stream import Streams
from metarun.wiring.build import build_source
from metarun.wiring.places import check_targets
from metarun.wiring.streams import renamed


def folder_stream(folder: Path, images: int = 3, *words: str) -> list[str]:
    for number in range(12):
        (folder / f"class{number}").mkdir()
        for picture in range(images):
            Image.new("L", (4, 4), 20 * number + picture).save(folder / f"class{number}/{picture}.png")
    sizes = ["task.per_class=2", "task.held_out=1", "task.classes=2", "task.train_classes=2"]
    return ["task=stream", "task/source=folder", f"task.source.root={folder}", "task.source.image_size=4", *sizes, *words]


def test_the_drawn_split_of_a_folder_goes_into_the_config_and_restores_the_same_trajectories(tmp_path: Path):
    config = composed(*folder_stream(tmp_path))
    first = build_source(config)
    assert isinstance(first, Streams)
    drawn = [name for names in config["task"]["source"]["classes"].values() for name in names]
    assert sorted(drawn) == sorted(f"class{n}" for n in range(12))
    assert config["task"]["val_classes"] == 2
    config["task"]["source"]["split_seed"] = 5
    assert build_source(config).source.classes == first.source.classes
    check_targets(config)


def test_a_folder_with_too_few_images_is_refused_with_the_keys_of_the_stream(tmp_path: Path):
    words = folder_stream(tmp_path)
    (tmp_path / "class3/1.png").unlink()
    (tmp_path / "class3/2.png").unlink()
    with pytest.raises(
        UserError, match=r"class 'class3' has 1 image; 2 in the stream \+ 1 held out need 3\. Lower task\.held_out or task\.per_class"
    ):
        build_source(composed(*words))
    skipped = build_source(composed(*words, "task.source.skip_small=true"))
    assert all("class3" not in names for names in skipped.source.classes.values())


@pytest.mark.parametrize(
    ("labels", "needs"),
    [
        ("global", r"5 in the stream need 5\. Lower task\.train_per_class"),
        ("episode", r"5 in the stream \+ 1 held out need 6\. Lower task\.held_out or task\.train_per_class"),
    ],
)
def test_a_folder_checks_its_training_classes_for_what_a_training_trajectory_takes(tmp_path: Path, labels: str, needs: str):
    words = folder_stream(tmp_path, 5 if labels == "global" else 6, "task.train_per_class=5", f"task.train_labels={labels}")
    assert build_source(composed(*words)).episode("train", 0).support.x.shape[0] == 10
    files = [tmp_path / f"class{number}" / f"{picture}.png" for number in range(12) for picture in (4, 5)]
    for file in files[:20]:
        file.unlink(missing_ok=True)
    with pytest.raises(UserError, match=rf"train classes have too few images: .*; {needs}"):
        build_source(composed(*words))


def test_all_splits_that_the_stream_cannot_fill_are_in_one_message(tmp_path: Path):
    words = folder_stream(tmp_path, 1, "task.train_per_class=4", "task.train_labels=global")
    with pytest.raises(UserError) as caught:
        build_source(composed(*words))
    for needs in ("8 train classes .* 4 in the stream need 4", "2 val classes .* 2 in the stream \\+ 1 held out need 3", "2 test classes"):
        assert re.search(needs, str(caught.value))


def test_the_messages_of_a_source_name_the_keys_of_the_stream():
    assert renamed("task=folder needs task.root=DIR") == "task=folder needs task.source.root=DIR"
    assert renamed("1 shot + 5 queries need 6. Lower task.shots or task.queries") == (
        "1 in the stream + 5 held out need 6. Lower task.per_class or task.held_out"
    )
    assert renamed("task.source.root=x is wrong") == "task.source.root=x is wrong"


def test_omniglot_streams_divide_the_background_characters_and_keep_the_evaluation_characters_for_the_test(omniglot_root: Path):
    source = build_source(composed("task=stream", "task/source=omniglot", f"task.source.root={omniglot_root}", "task.classes=600"))
    assert {split: source.population(split) for split in SPLITS} == {"train": 810, "val": 154, "test": 659}
    assert len({name for split in SPLITS for name in source.origins(split)}) == 1623
    assert source.trajectory("val").parts == 154
    assert source.episode("test", 0).support.x.shape == (9000, 1, 28, 28)
