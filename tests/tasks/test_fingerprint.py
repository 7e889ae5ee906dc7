"""Fingerprints of data: what they notice, and what they leave alone."""

from __future__ import annotations

import dataclasses
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageOps
from small import Lines, few_shot

from metarun.records.content import Copier
from metarun.tasks import fingerprint as module
from metarun.tasks.fingerprint import WithFingerprint, differences, files_of, fingerprint_of, of_images, of_table
from metarun.tasks.folder import folder
from metarun.tasks.mixture import Mixture
from metarun.tasks.noisy import Noisy
from metarun.tasks.pictures.image_files import find_images
from metarun.tasks.table import table


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six classes of three images."""
    for number in range(6):
        (tmp_path / f"set/c{number}").mkdir(parents=True)
        for image in range(3):
            Image.new("L", (8, 8), 10 * number + image).save(tmp_path / f"set/c{number}/{image}.bmp")
    return tmp_path / "set"


def changes(before: Path, now: Path | None = None, change: Callable[[], object] = lambda: None) -> list[str]:
    first = of_images(find_images(before))
    change()
    return differences(first, of_images(find_images(now or before)))


def test_a_set_that_moved_or_was_touched_is_the_same(root: Path, tmp_path: Path) -> None:
    assert changes(root) == []
    assert changes(root, change=lambda: [os.utime(file, (1, 1)) for file in root.rglob("*.bmp")]) == []
    shutil.copytree(root, tmp_path / "elsewhere/another name")
    assert changes(root, tmp_path / "elsewhere/another name") == []


@pytest.mark.parametrize("around", ["", "photos/", "a/b/"])
def test_a_zip_of_a_folder_is_the_same(root: Path, tmp_path: Path, around: str) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for image in root.rglob("*.bmp"):
            file.write(image, f"{around}{image.relative_to(root)}")
    assert changes(root, tmp_path / "set.zip") == []


def test_inverted_pixels_are_noticed_although_names_and_sizes_stay(root: Path) -> None:
    def invert() -> None:
        for file in root.rglob("*.bmp"):
            ImageOps.invert(Image.open(file)).save(file)

    assert changes(root, change=invert) == ["the contents of 18 of 18 sampled images differ"]


def test_images_that_come_go_and_grow_are_counted(root: Path) -> None:
    def change() -> None:
        for number in range(3):
            Image.new("L", (8, 8)).save(root / f"c0/new{number}.bmp")
        shutil.rmtree(root / "c5")
        Image.new("L", (9, 9)).save(root / "c1/0.bmp")

    words = ["3 images added", "3 images removed", "1 image with another size of the file", "the contents of 1 of 15 sampled images differ"]
    assert changes(root, change=change) == words


def test_a_class_of_another_name_is_its_images_removed_and_added(root: Path) -> None:
    assert changes(root, change=lambda: (root / "c0").rename(root / "d0")) == ["3 images added", "3 images removed"]


def test_of_a_large_set_the_names_are_told_together(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LISTED", 10)
    monkeypatch.setattr(module, "SAMPLE", 5)
    assert "listed" not in of_images(find_images(root))
    assert changes(root) == []
    assert changes(root, change=lambda: (root / "c0/0.bmp").rename(root / "c0/00.bmp"))[0] == "names or sizes of images differ"
    assert changes(root, change=lambda: (root / "c0/1.bmp").unlink())[0] == "17 images instead of 18"


def test_a_sample_reads_no_more_than_its_limit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (root / "c0/0.bmp").stat().st_size
    monkeypatch.setattr(module, "READ", 3 * size)
    assert len(of_images(find_images(root))["sample"]) == 3


def test_a_file_that_cannot_be_read_is_not_in_the_sample(root: Path) -> None:
    files = find_images(root)
    before = of_images(files)
    (root / "c0/0.bmp").unlink()
    now = of_images(files)
    assert len(now["sample"]) == 17
    assert differences(before, now) == []


def a_table(path: Path, factor: float = 1.0, rows: int = 4, tasks: int = 4) -> dict[str, Any]:
    lines = [f"t{task},{row},{factor * task * row}" for task in range(tasks) for row in range(rows)]
    path.write_text("\n".join(["task,x,y", *lines]))
    return fingerprint_of(table(path=str(path), task_column="task", target="y", shots=1, queries=1))


def test_a_table_is_compared_by_its_rows_its_tasks_and_its_values(tmp_path: Path) -> None:
    before = a_table(tmp_path / "a.csv")
    assert differences(before, a_table(tmp_path / "b.csv")) == []
    assert differences(before, a_table(tmp_path / "a.csv", factor=1000.0)) == ["the values of the table differ"]
    assert differences(before, a_table(tmp_path / "a.csv", rows=5)) == ["20 rows instead of 16"]
    assert differences(before, a_table(tmp_path / "a.csv", tasks=5)) == ["20 rows instead of 16", "5 tasks instead of 4"]
    assert of_table(tmp_path / "a.csv", 1, 1)["digest"] != before["digest"]


def test_pictures_without_files_are_compared_as_they_are_in_memory() -> None:
    source = few_shot()
    assert differences(fingerprint_of(source), fingerprint_of(few_shot(ways=2, seed=3).numbered())) == []
    pools = {split: dataclasses.replace(pool, images=255 - pool.images) for split, pool in source.pools.items()}
    assert differences(fingerprint_of(source), fingerprint_of(dataclasses.replace(source, pools=pools))) == ["images or classes differ"]
    names = {split: dataclasses.replace(pool, names=[f"x{name}" for name in pool.names]) for split, pool in source.pools.items()}
    assert differences(fingerprint_of(source), fingerprint_of(dataclasses.replace(source, pools=names))) == ["images or classes differ"]
    assert differences(fingerprint_of(source), fingerprint_of(few_shot(side=16))) == ["images or classes differ"]


def test_a_source_around_others_has_their_fingerprints(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))
    sizes = {"image_size": 8, "channels": 1, "ways": 2, "shots": 1, "queries": 1}
    photos = folder(root=str(root), split=[2, 2, 2], **sizes)
    both = Mixture({"mine": photos, "other": few_shot(ways=2, shots=1, queries=1)})
    before = fingerprint_of(both)
    shutil.rmtree(root / "c5/")
    (root / "c4/0.bmp").rename(root / "c5.bmp")
    now = {**before, "sources": {**before["sources"], "mine": of_images(find_images(root))}}
    assert differences(before, now)[:2] == ["mine: 1 image added", "mine: 4 images removed"]
    assert fingerprint_of(Noisy(Lines(), 0.1)) == {}
    assert fingerprint_of(Mixture({"a": Lines()})) == {}


@dataclasses.dataclass
class Own:
    """A user's own source."""

    version: str

    def fingerprint(self) -> dict[str, Any]:
        return {"kind": "my database", "version": self.version}


def test_images_in_memory_are_left_out_of_the_files_inside_of_a_mixture_too() -> None:
    """Their digest follows the size of the images, so it says nothing about data of an evaluation at another size."""
    table, pictures = {"kind": "table", "rows": 3}, {"kind": "pictures", "count": 2}
    assert files_of({"kind": "sources", "sources": {"a": table, "b": pictures}}) == {"kind": "sources", "sources": {"a": table}}
    assert files_of({"kind": "sources", "sources": {"b": pictures}}) == files_of(pictures) == {}
    assert files_of(table) == table


def test_a_user_s_own_source_compares_its_own_values() -> None:
    assert isinstance(Own("1"), WithFingerprint)
    assert differences(fingerprint_of(Own("1")), fingerprint_of(Own("2"))) == ["version is 2 instead of 1"]
    assert fingerprint_of(Lines()) == {}


@pytest.mark.parametrize(
    "broken", [{"listed": 3}, {"listed": torch.zeros(3)}, {"sample": "x"}, {"sample": torch.zeros(2, 3)}, {"count": None}]
)
def test_a_fingerprint_that_makes_no_sense_is_told(root: Path, broken: dict[str, Any]) -> None:
    now = of_images(find_images(root))
    before = {**now, **broken}
    if "count" in broken:
        before = {key: value for key, value in before.items() if key != "listed"}
    assert differences(before, now) == ["the checkpoint describes its data in a way that this metarun cannot read"]


def test_unknown_data_differ_in_nothing_and_data_of_another_kind_do(root: Path, tmp_path: Path) -> None:
    images = of_images(find_images(root))
    assert differences({}, images) == differences(images, {}) == []
    assert differences(a_table(tmp_path / "a.csv"), images) == ["the data are of another kind"]
    assert differences({"kind": [1]}, images) == ["the data are of another kind"]


def test_a_fingerprint_fits_into_a_checkpoint(root: Path) -> None:
    found = of_images(find_images(root))
    assert differences(Copier(copy=True)(found, "data"), found) == []
    assert found["listed"].nbytes == 18 * 16
