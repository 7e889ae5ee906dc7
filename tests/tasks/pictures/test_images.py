"""Reading images from folders and zips, and the cache."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metarun.errors import UserError
from metarun.tasks.pictures import images as module
from metarun.tasks.pictures.decoding import decode
from metarun.tasks.pictures.image_files import find_images
from metarun.tasks.pictures.images import by_reason, cache_folder, cached, read_images, try_images


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # the replacement of a cache folder that does not fit lies there
    return tmp_path / "cache"


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def a_file(root: Path, name: str, data: bytes = b"") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(data)


def test_a_zip_and_the_folder_it_was_made_of_give_the_same_images(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for i, name in enumerate(["b/2.png", "a/1.png", "a/10.jpg"]):
            data = encode(Image.new("RGB", (9, 7), (10 * i, 20, 30)), "JPEG" if name.endswith("jpg") else "PNG")
            a_file(tmp_path / "set", name, data)
            archive.writestr(name, data)
    folder, packed = find_images(tmp_path / "set"), find_images(tmp_path / "set.zip")
    assert folder.names == packed.names == ("a/1.png", "a/10.jpg", "b/2.png")
    images = read_images(folder, size=5, channels=3, name="set")
    assert images.shape == (3, 3, 5, 5)
    assert images[2, :, 2, 2].tolist() == [0, 20, 30]
    assert torch.equal(images, read_images(packed, size=5, channels=3, name="set"))


def test_the_shorter_side_is_resized_and_the_middle_cut_out() -> None:
    """Of a 30x10 image of three 10x10 squares, size 10 keeps the middle square."""
    pixels = np.repeat(np.array([[0, 100, 200]], dtype=np.uint8), 10, axis=1).repeat(10, axis=0)
    assert (decode(encode(Image.fromarray(pixels)), size=10, channels=1) == 100).all()
    assert (decode(encode(Image.fromarray(pixels.T.copy())), size=10, channels=1) == 100).all()


def test_the_orientation_in_the_exif_data_is_honoured() -> None:
    """Orientation 6 says: turn by 90 degrees clockwise to show; the left half then comes to the top."""
    pixels = np.zeros((8, 8), dtype=np.uint8)
    pixels[:, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    shown = decode(encode(Image.fromarray(pixels), exif=exif), size=8, channels=1)[..., 0]
    assert (shown[:4] == 255).all()
    assert (shown[4:] == 0).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_grey_or_colour(mode: str, channels: int) -> None:
    image = Image.fromarray(np.full((6, 6), 0x8040, dtype=np.uint16)) if mode == "I;16" else Image.new("L", (6, 6), 128).convert(mode)
    decoded = decode(encode(image, "TIFF" if mode == "CMYK" else "PNG"), size=6, channels=channels)
    assert decoded.shape == (6, 6, channels)
    assert abs(float(decoded.mean()) - 128) < (2 if mode != "1" else 20)


def test_transparent_pixels_are_white() -> None:
    assert (decode(encode(Image.new("RGBA", (4, 4), (0, 0, 0, 0))), size=4, channels=3) == 255).all()


@pytest.mark.parametrize("data", [b"", b"no image", encode(Image.new("RGB", (64, 64)))[:60]], ids=["empty", "text", "truncated"])
def test_an_unreadable_image_is_named(tmp_path: Path, data: bytes) -> None:
    a_file(tmp_path / "set", "oak/bad.png", data)
    with pytest.raises(UserError, match=r"cannot read 'oak/bad\.png' of '.*set' as an image"):
        read_images(find_images(tmp_path / "set"), size=8, channels=3, name="set")


def test_the_second_call_reads_the_cache_and_a_changed_file_makes_a_new_one(tmp_path: Path, cache: Path) -> None:
    a_file(tmp_path / "set", "a/1.png", encode(Image.new("L", (4, 4), 10)))

    def read() -> int:
        return int(read_images(find_images(tmp_path / "set"), size=4, channels=1, name="set").max())

    assert read() == read() == 10
    assert len(list(cache.iterdir())) == 1
    a_file(tmp_path / "set", "a/1.png", encode(Image.new("L", (4, 4), 20)))
    os.utime(tmp_path / "set" / "a" / "1.png", ns=(1, 1))
    assert read() == 20
    assert len(list(cache.iterdir())) == 2


def keep(images: torch.Tensor | None, *facts: str, shape: tuple[int, ...] = (16, 1, 4, 4)) -> torch.Tensor:
    """Cache these images, or expect them to be there already."""

    def make() -> Iterator[np.ndarray]:
        yield from pytest.fail("made again") if images is None else images.numpy()

    return cached("x", facts, shape, make)


IMAGES = torch.arange(256, dtype=torch.uint8).reshape(16, 1, 4, 4)


@pytest.fixture(params=["read", "mapped"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have tensors of any size mapped, or none."""
    if request.param == "mapped":
        monkeypatch.setattr(module, "LARGE", 1)
    return request.param


def test_what_is_cached_comes_back_bit_by_bit_without_being_made_again(way: str) -> None:
    assert torch.equal(keep(IMAGES, "facts"), IMAGES)
    assert torch.equal(keep(None, "facts"), IMAGES)
    assert torch.equal(keep(IMAGES.flip(0), "other facts"), IMAGES.flip(0))


def test_a_large_set_is_the_cache_file_itself_mapped_and_a_small_one_is_in_memory(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mapped(images: torch.Tensor) -> bool:
        lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(cache) in line]
        ranges = [[int(end, 16) for end in line[0].split("-")] for line in lines if line[1].startswith("r--")]
        return any(start <= images.data_ptr() < end for start, end in ranges)

    if not Path("/proc/self/maps").exists():
        pytest.skip("this system does not list what is mapped")
    assert not mapped(keep(IMAGES))
    monkeypatch.setattr(module, "LARGE", 200)
    assert mapped(keep(None))


def test_a_mapped_set_stays_whole_when_its_file_is_replaced(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE", 1)
    images = keep(IMAGES)
    (path,) = cache.iterdir()
    path.unlink()
    keep(IMAGES.flip(0))
    assert torch.equal(images, IMAGES)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "text"])
def test_a_damaged_cache_file_is_made_anew_with_one_warning(way: str, cache: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    keep(IMAGES)
    (path,) = cache.iterdir()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes({"flip": bytes(data), "truncate": path.read_bytes()[:100], "empty": b"", "text": b"hello " * 50}[damage])
    with caplog.at_level(logging.WARNING):
        assert torch.equal(keep(IMAGES), IMAGES)
    assert len(caplog.records) == 1
    assert torch.equal(keep(None), IMAGES)


def test_the_form_of_a_cache_file_is_a_checksum_and_a_numpy_array(cache: Path) -> None:
    """So that the files of earlier versions stay good."""
    keep(IMAGES)
    (path,) = cache.iterdir()
    data, array = path.read_bytes(), io.BytesIO()
    np.lib.format.write_array(array, IMAGES.numpy(), allow_pickle=False)
    assert data == hashlib.sha256(array.getvalue()).digest() + array.getvalue()


def test_a_cache_that_cannot_be_written_costs_one_warning_only(way: str, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        assert torch.equal(keep(IMAGES), IMAGES)
    assert len(caplog.records) == 1
    assert "cannot be used, since it is no folder" in caplog.text


def test_images_read_without_a_cache_are_those_read_with_one(tmp_path: Path, cache: Path) -> None:
    a_file(tmp_path / "set", "a/1.png", encode(Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))))
    files = find_images(tmp_path / "set")
    kept = read_images(files, size=4, channels=3, name="set")
    shutil.rmtree(cache)
    cache.write_text("a file where the folder should be")
    assert torch.equal(read_images(files, size=4, channels=3, name="set"), kept)


def test_a_failed_write_leaves_no_file_behind(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert torch.equal(keep(IMAGES), IMAGES)
    assert list(cache.iterdir()) == []


def test_all_unreadable_files_are_named_at_once(tmp_path: Path, cache: Path) -> None:
    picture = encode(Image.fromarray(np.arange(3000, dtype=np.uint8).reshape(50, 60)))
    for number in range(12):
        a_file(tmp_path / "set", f"a/{number:02}.png", picture[: 9 * number])
    a_file(tmp_path / "set", "a/IMG.HEIC", b"\0\0\0\x18ftypheic" + bytes(20))
    a_file(tmp_path / "set", "a/\x1b[2J.png", b"no image")
    a_file(tmp_path / "set", "b/good.png", picture)
    a_file(tmp_path / "set", "b/good.xmp", b"side-car")
    with pytest.raises(UserError, match=r"cannot read 14 of the 15 files of '.*' as images") as raised:
        read_images(find_images(tmp_path / "set"), size=4, channels=1, name="set")
    text = str(raised.value)
    assert r"'a/\x1b[2J.png' (no image of a format that metarun reads), 'a/00.png' (empty), " in text
    assert " and 4 more; repair, convert or remove these files." in text
    assert text.isprintable()
    assert "BytesIO" not in text


def test_pillows_warnings_stay_inside(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    data = encode(Image.new("L", (4, 4), 9), exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    a_file(tmp_path / "set", "a/1.png", data)
    assert int(read_images(find_images(tmp_path / "set"), size=4, channels=1, name="set").max()) == 9
    assert not recwarn.list


def test_a_set_whose_deep_images_would_all_be_black_is_refused(tmp_path: Path) -> None:
    """Cameras of 12 bits write values up to 4095 into files of 16 bits."""
    for number, high in enumerate((0, 800, 4095)):
        a_file(tmp_path / "set", f"a/{number}.tif", encode(Image.fromarray(np.full((4, 4), high, dtype=np.uint16)), "TIFF"))
    with pytest.raises(UserError, match="with 16-bit integers have no value above 4095, where 65535 is white, so they would all be"):
        read_images(find_images(tmp_path / "set"), size=4, channels=1, name="set")
    a_file(tmp_path / "set", "a/3.tif", encode(Image.fromarray(np.full((4, 4), 65535, dtype=np.uint16)), "TIFF"))
    shades = read_images(find_images(tmp_path / "set"), size=4, channels=1, name="set")[:, 0, 0, 0]
    assert shades.tolist() == [0, 3, 15, 255]


@pytest.mark.parametrize("large", [False, True])
def test_the_cache_keeps_which_files_are_no_images(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, large: bool) -> None:
    a_file(tmp_path / "set", "a/1.png", encode(Image.new("L", (4, 4), 7)))
    a_file(tmp_path / "set", "a/2.png", b"no image")
    files = find_images(tmp_path / "set")
    if large:
        monkeypatch.setattr(module, "LARGE", 1)
    made = [try_images(files, size=4, channels=1, name="set")]
    monkeypatch.setattr(module, "decode", lambda *_, **__: pytest.fail("read again"))
    made.append(try_images(files, size=4, channels=1, name="set"))
    for shown, unreadable in made:
        assert shown.amax(dim=(1, 2, 3)).tolist() == [7, 0]
        assert unreadable == {"a/2.png": "no image of a format that metarun reads"}
    with pytest.raises(UserError, match=r"cannot read 'a/2\.png'"):
        read_images(files, size=4, channels=1, name="set")


def test_a_file_that_may_be_readable_later_is_not_kept_as_unreadable(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_file(tmp_path / "set", "a/1.png", encode(Image.new("L", (4, 4), 7)))
    files = find_images(tmp_path / "set")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(module, "decode", refused)
        assert try_images(files, size=4, channels=1, name="set")[1] == {"a/1.png": "Permission denied"}
        assert list(cache.iterdir()) == []
    assert try_images(files, size=4, channels=1, name="set")[1] == {}


def test_one_reason_stands_behind_all_files_of_which_it_is_true() -> None:
    reasons = {"1.heic": "HEIC", "2.png": "empty", "3.heic": "HEIC"} | {f"{number}.png": "empty" for number in range(4, 16)}
    assert by_reason({name: reasons[name] for name in list(reasons)[:3]}) == "'1.heic', '3.heic' (HEIC), '2.png' (empty)"
    assert by_reason(reasons).endswith("'10.png' (empty) and 5 more")


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METARUN_CACHE", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    assert cache_folder() == Path("/one")
    monkeypatch.delenv("METARUN_CACHE")
    assert cache_folder() == Path("/two/metarun")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/three")
    assert cache_folder() == Path("/three/.cache/metarun")
