"""CIFAR-FS and FC100 on small stand-ins of CIFAR-100."""

from __future__ import annotations

import sys
import tarfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metarun.errors import UserError
from metarun.tasks.cifar import cifar_fs, fc100
from metarun.tasks.pictures.published import published
from metarun.tasks.pool import SPLITS
from metarun.tasks.sampling import FewShot

FEW = {"queries": 1}
NAMES = sorted(published("fc100").classes)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("METARUN_DATA", raising=False)


def write_binary(folder: Path) -> Path:
    """Write one training and one test image of each class; all pixels of an image are the number of its class."""
    folder.mkdir(parents=True)
    rows = np.repeat(np.arange(100, dtype=np.uint8), 3074).reshape(100, 3074)
    for part in ("train", "test"):
        rows.tofile(folder / f"{part}.bin")
    return folder


def check(source: FewShot, name: str) -> None:
    """Check splits, and that each class has the images of its number."""
    split = published(name)
    for each in SPLITS:
        assert source.origins(each) == tuple(f"cifar100/{cls}" for cls in split.splits[each])
        pool = source.pools[each]
        shades = [int(pool.images[row, 0, 0, 0]) for row in (pool.rows if pool.rows is not None else range(len(pool.images)))]
        assert shades == [NAMES.index(cls) for cls in split.splits[each] for _ in range(2)]


@pytest.mark.parametrize(("make", "name"), [(cifar_fs, "cifar_fs"), (fc100, "fc100")])
def test_both_splits_read_the_official_files(make: Any, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_binary(tmp_path / "set/cifar-100-binary")
    source = make(root=str(tmp_path / "set"), **FEW)
    check(source, name)
    assert source.episode("test", 0).support.x.shape == (5, 3, 32, 32)
    assert f"has 200 images of the classes of {name}; the published set has 60,000" in caplog.text


def test_the_folder_of_metarun_data_is_read_and_another_size_resampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_binary(tmp_path / "cifar100/cifar-100-binary")
    monkeypatch.setenv("METARUN_DATA", str(tmp_path))
    assert cifar_fs(image_size=16, channels=1, **FEW).episode("val", 0).query.x.shape == (5, 1, 16, 16)


def test_the_archive_of_the_authors_is_read(tmp_path: Path) -> None:
    write_binary(tmp_path / "set/cifar-100-binary")
    with tarfile.open(tmp_path / "cifar-100-binary.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "set/cifar-100-binary", "cifar-100-binary")
    check(fc100(root=str(tmp_path / "cifar-100-binary.tar.gz"), **FEW), "fc100")


def test_folders_of_images_are_read_as_well(tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        (tmp_path / f"cifar100/data/{name}").mkdir(parents=True)
        for picture in range(2):
            Image.new("RGB", (4, 4), (number, number, number)).save(tmp_path / f"cifar100/data/{name}/{name}_s_{picture}.png")
    check(cifar_fs(root=str(tmp_path / "cifar100"), image_size=4, **FEW), "cifar_fs")


def test_a_class_has_the_same_name_in_both_splits(tmp_path: Path) -> None:
    """CIFAR-FS trains on 2 of FC100's aquatic mammals, 3 insects, 4 medium mammals and 2 people; metarun can therefore refuse that test."""
    write_binary(tmp_path / "set/cifar-100-binary")
    one, other = (make(root=str(tmp_path / "set"), **FEW) for make in (cifar_fs, fc100))
    assert len(set(one.origins("train")) & set(other.origins("test"))) == 2 + 3 + 4 + 2


def test_absent_images_are_refused_with_the_remedies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UserError, match=r"CIFAR-100 is not in .*cache/cifar100'\. Give task.root=DIR .* or download it: pip install torchvision"
    ):
        cifar_fs(**FEW)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(UserError, match=r"task.download=true needs torchvision"):
        cifar_fs(download=True, **FEW)


def test_a_download_goes_into_the_folder_and_is_read_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(root: str, *, download: bool) -> None:
        asked.append((root, download))
        write_binary(Path(root) / "cifar-100-binary")

    monkeypatch.setitem(sys.modules, "torchvision.datasets", types.SimpleNamespace(CIFAR100=fetch))
    for _ in range(2):  # the second time, the images are there
        check(fc100(root=str(tmp_path / "new"), download=True, **FEW), "fc100")
    assert asked == [(str(tmp_path / "new"), True)]


def test_a_failed_download_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(root: str, *, download: bool) -> None:
        raise RuntimeError("no network")

    monkeypatch.setitem(sys.modules, "torchvision.datasets", types.SimpleNamespace(CIFAR100=fetch))
    with pytest.raises(UserError, match=r"downloading CIFAR-100 to .* failed \(no network\)"):
        cifar_fs(root=str(tmp_path / "new"), download=True, **FEW)
