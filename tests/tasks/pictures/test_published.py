"""The published class lists: their counts, that no class is in two splits, and that the files are those of the manifest."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch

from metarun.errors import UserError
from metarun.tasks.pictures import published as module
from metarun.tasks.pictures.published import published
from metarun.tasks.pool import SPLITS

FOLDER = Path(module.__file__).parent / "splits"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
COUNTS = {
    "mini_imagenet": (64, 16, 20),
    "tiered_imagenet": (351, 97, 160),
    "cifar_fs": (64, 16, 20),
    "fc100": (60, 20, 20),
    "cub": (100, 50, 50),
}
"""Classes for training, validation and test, as the papers state them."""


def test_the_manifest_has_the_hash_of_every_file_and_the_source_of_every_list() -> None:
    files = {facts["file"]: facts["sha256"] for facts in MANIFEST.values()}
    assert files == {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in FOLDER.glob("*.json") if file.name != "manifest.json"
    }
    assert all(facts["source"] for facts in MANIFEST.values())
    assert all(MANIFEST[name]["paper"] for name in COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_a_list_has_the_published_counts_and_no_class_twice(name: str) -> None:
    split = published(name)
    assert tuple(len(split.splits[each]) for each in SPLITS) == COUNTS[name]
    assert len(set(split.classes)) == sum(COUNTS[name])


def test_the_classes_of_imagenet_are_wordnet_ids_with_words() -> None:
    for name in ("mini_imagenet", "tiered_imagenet"):
        split = published(name)
        assert all(re.fullmatch(r"n\d{8}", each) for each in split.classes)
        assert set(split.classes) <= set(split.words)
    assert published("mini_imagenet").words["n01532829"] == "house finch"
    assert published("mini_imagenet").splits["test"].keys() >= {"n01930112", "n07613480"}


def test_superclasses_of_tiered_imagenet_and_fc100_are_in_one_split_each() -> None:
    for name, counts in {"tiered_imagenet": (20, 6, 8), "fc100": (12, 4, 4)}.items():
        groups = [set(published(name).splits[each].values()) for each in SPLITS]
        assert tuple(map(len, groups)) == counts
        assert len(set.union(*groups)) == sum(counts)


def test_cifar_fs_and_fc100_divide_the_same_100_classes_of_20_superclasses() -> None:
    merged = [{cls: group for each in SPLITS for cls, group in published(name).splits[each].items()} for name in ("cifar_fs", "fc100")]
    assert merged[0] == merged[1]
    assert len(set(merged[0].values())) == 20
    assert published("fc100").splits["test"]["beaver"] == "aquatic_mammals"


def test_cub_takes_every_second_species_for_training_and_the_others_in_turn() -> None:
    """Chen et al. number the species from 0: even numbers train, 1 modulo 4 validates, and 3 modulo 4 tests."""
    split = published("cub")
    ordered = sorted(split.classes)
    assert [int(name[:3]) for name in ordered] == list(range(1, 201))
    assert [list(split.splits[each]) for each in SPLITS] == [ordered[::2], ordered[1::4], ordered[3::4]]


def test_pools_take_names_groups_and_origins_from_the_list() -> None:
    split = published("fc100")
    rows = {name: [2 * number, 2 * number + 1] for number, name in enumerate(sorted(split.classes))}
    pools = split.pools(torch.arange(200, dtype=torch.uint8).reshape(200, 1, 1, 1), rows, "x")
    assert pools["test"].names[:2] == ["beaver", "dolphin"]
    assert pools["test"].groups is not None
    assert pools["test"].groups[:6] == ["aquatic_mammals"] * 5 + ["insects"]
    assert pools["test"].values(torch.tensor([0, 1])).flatten().mul(255).round().tolist() == rows["beaver"]
    imagenet = published("mini_imagenet")
    pools = imagenet.pools(torch.zeros(1, 1, 1, 1, dtype=torch.uint8), {name: [0] for name in imagenet.classes}, "x")
    assert (pools["train"].names[0], (pools["train"].origins or [])[0]) == ("n01532829 house finch", "n01532829")


def test_missing_classes_are_refused_with_the_counts_of_each_split() -> None:
    split = published("cifar_fs")
    rows = {name: [0] for name in split.classes if name not in ("otter", "baby", "bed", "whale", "woman")} | {"apples": [0]}
    with pytest.raises(UserError) as error:
        split.check(rows, "copy")
    assert str(error.value).startswith(
        "'copy' has no images of 1 of the 16 val classes (otter) and 4 of the 20 test classes (whale, bed, baby, …) of cifar_fs; "
    )
