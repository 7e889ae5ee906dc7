"""Any layout of folders, links and zips: episodes of distinct files, or one sentence; never another exception, a hang or a foreign file.

`fuzz` says how many of them the suite tries.
"""

from __future__ import annotations

import io
import os
import random
import re
import signal
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzz import fuzz
from hypothesis import event, given
from hypothesis import strategies as st
from PIL import Image

from metarun.errors import UserError
from metarun.tasks.folder import class_split, folder
from metarun.tasks.pictures.class_folders import class_folders
from metarun.tasks.pictures.image_files import find_images

KINDS = [
    "png",
    "jpg",
    "gif",
    "bmp",
    "webp",
    "tif",
    "ppm",
    "png16",
    "tif16",
    "tif32",
    "tiff",
    "rgba",
    "palette",
    "grey",
    "one",
    "ico",
    "jp2",
]
ODD = [
    "é",
    "e\u0301",
    "a\nb",
    "a\x1b[2Jb",
    " oak",
    "oak ",
    "Oak",
    "~",
    "%s",
    "{x}",
    "$HOME",
    "日本",
    "😀",
    "-rf",
    "a=b",
    "a,b",
    "[1]",
    "x" * 120,
    "c1",
]
HIDDEN = ["@eaDir", "__MACOSX", ".thumbnails", "$RECYCLE.BIN", "System Volume Information", "lost+found"]
JUNK = [b"", b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", b"%PDF-1.7", b"\0\0\0\x18ftypheic", bytes(4000)]
JUNK += [
    b"II*\0\x08\0\0\0\xff\xff",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"GIF89a\xff\xff\xff\xff",
    b"BM" + b"\xff" * 60,
    b"P6 9999999 9999999 255 ",
]
JUNK_NAMES = [
    "x.png",
    "x.jpg",
    "x.HEIC",
    "x.xmp",
    "x.AAE",
    "Thumbs.db",
    "._1.jpg",
    "x.zip",
    "x.tif",
    "x.eps",
    "x",
    "x.tga",
    "x.dng",
    ".DS_Store",
    "x.",
]
LINKS = [
    ".",
    "..",
    "../..",
    "/",
    "../c1",
    "../c2",
    "0.png",
    "missing",
    "loop",
    "../c1/0.png",
    "../../store",
    "../../store/7.png",
    "/dev/zero",
    "/dev/null",
]


@dataclass(frozen=True)
class Change:
    """One odd thing in the layout; `where` picks the class, `what` picks among its kinds, `data` fills it."""

    kind: str
    where: int
    what: int
    data: bytes


CHANGES = st.builds(
    Change,
    st.sampled_from(["junk", "link", "hard", "pipe", "odd", "hidden", "deep", "flip", "cut", "loose", "single", "empty", "split", "name"]),
    st.integers(0, 7),
    st.integers(0, 1000),
    st.binary(max_size=12),
)


@dataclass
class Layout:
    """The files of a set by their names, the shade of each good image, and the links and pipes among them."""

    files: dict[str, bytes] = field(default_factory=dict)
    shades: dict[str, int] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    twins: dict[str, str] = field(default_factory=dict)
    pipes: list[str] = field(default_factory=list)

    def add(self, name: str, shade: int, kind: str) -> None:
        self.files[name] = picture(shade, kind)
        self.shades[name] = shade


def picture(shade: int, kind: str) -> bytes:
    """Encode an image of one colour that no other shade has."""
    value = 5 * shade % 256
    image = Image.new("RGB", (5 + shade % 4, 6), (value, 255 - value, 128))
    options: dict[str, object] = {}
    if kind == "png16" or kind == "tif16":
        image = Image.fromarray(np.full((6, 5), 257 * value, dtype=np.uint16))
    elif kind == "tif32":
        image = Image.fromarray(np.full((6, 5), value << 23, dtype=np.int32))
    elif kind == "tiff":
        image = Image.fromarray(np.full((6, 5), value / 255, dtype=np.float32))
    elif kind == "rgba":
        image = Image.new("RGBA", (5, 6), (value, 255 - value, 128, 255))
    elif kind == "palette":
        image = image.convert("P", palette=Image.Palette.ADAPTIVE)
    elif kind == "grey":
        image = Image.new("L", (5, 6), value)
    elif kind == "one":
        image = Image.new("1", (5, 6), shade % 2)
    elif kind in ("webp", "jp2"):
        options = {"lossless": True} if kind == "webp" else {}
    formats = {"jpg": "JPEG", "gif": "GIF", "bmp": "BMP", "webp": "WEBP", "ppm": "PPM", "ico": "ICO", "jp2": "JPEG2000"}
    buffer = io.BytesIO()
    image.save(buffer, "TIFF" if kind.startswith("tif") else formats.get(kind, "PNG"), **options)
    return buffer.getvalue()


def layout_of(classes: int, images: int, kinds: list[str], changes: list[Change], top: str) -> Layout:
    layout, shade = Layout(), 0
    for number in range(classes):
        for place in range(images):
            shade += 1
            layout.add(f"{top}c{number}/{place}.png", shade, kinds[shade % len(kinds)])
    for change in changes:
        shade += 1
        apply(layout, change, f"{top}c{change.where}", shade, kinds[shade % len(kinds)])
    return layout


def apply(layout: Layout, change: Change, home: str, shade: int, kind: str) -> None:
    what, names = change.what, sorted(layout.files)
    victim = names[what % len(names)]
    if change.kind == "junk":
        layout.files[f"{home}/{JUNK_NAMES[what % len(JUNK_NAMES)]}"] = JUNK[what % len(JUNK)] + change.data
    elif change.kind == "link":
        layout.links[f"{home}/link{change.where + what % 3}.png"] = LINKS[what % len(LINKS)]
    elif change.kind == "hard":
        layout.twins[f"{home}/twin.png"] = victim
    elif change.kind == "pipe":
        layout.pipes.append(f"{home}/pipe.png")
    elif change.kind in ("odd", "hidden"):
        names = ODD if change.kind == "odd" else HIDDEN
        layout.add(f"{home if what % 2 else home[:-2]}/{names[what % len(names)]}/1.png".lstrip("/"), shade, kind)
    elif change.kind == "deep":
        layout.add(f"{home}/{'d/' * (what % 60)}1.jpg", shade, kind)
    elif change.kind == "flip" and layout.files[victim]:
        data = bytearray(layout.files[victim])
        data[what * 7919 % len(data)] ^= 1 << change.where
        layout.files[victim] = bytes(data)
        layout.shades.pop(victim, None)
    elif change.kind == "cut":
        layout.files[victim] = layout.files[victim][: what % (len(layout.files[victim]) + 1)]
        layout.shades.pop(victim, None)
    elif change.kind == "loose":
        layout.add(f"loose{what % 3}.png", shade, kind)
    elif change.kind == "single":
        layout.add(f"only{what % 3}/1.png", shade, kind)
    elif change.kind == "empty":
        layout.files[f"{home}/.keep"] = b""
    elif change.kind == "split":
        split = ["train", "VAL", "valid", "test", "Train", "extra"][what % 6]
        for name in [name for name in names if name.startswith(f"{home}/")]:
            layout.files[f"{split}/{name}"] = layout.files.pop(name)
            if name in layout.shades:
                layout.shades[f"{split}/{name}"] = layout.shades.pop(name)
    elif change.kind == "name":
        layout.add(f"{home}/{ODD[what % len(ODD)]}.png", shade, kind)


def on_disk(layout: Layout, root: Path) -> None:
    """Write the layout; what a name that is taken already would need is left out."""
    (root.parent / "store").mkdir()
    (root.parent / "store" / "7.png").write_bytes(picture(50, "png"))
    root.mkdir()
    for name, data in layout.files.items():
        try:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        except OSError:
            layout.shades.pop(name, None)
    for name, target in layout.links.items():
        if (root / name).parent.is_dir() and not os.path.lexists(root / name):
            (root / name).symlink_to(target)
    for name, target in layout.twins.items():
        if (root / name).parent.is_dir() and not os.path.lexists(root / name) and (root / target).is_file():
            os.link(root / target, root / name)
    for name in layout.pipes:
        if (root / name).parent.is_dir() and not os.path.lexists(root / name):
            os.mkfifo(root / name)


@contextmanager
def limit(seconds: int) -> Iterator[None]:
    """Fail what takes longer."""

    def stop(*_: object) -> None:
        raise AssertionError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check(root: Path, shades: dict[str, int], files: int) -> None:
    """Read the set, which deals episodes or is refused. Any other exception than UserError fails the test."""
    arguments = {"root": str(root), "image_size": 4, "split": [2, 2, 2], "ways": 2, "shots": 1, "queries": 1}
    try:
        source = folder(**arguments)
    except UserError as error:
        sentence = str(error)
    else:
        sentence = ""
    event(re.sub(r"'.*?'|\d+", "…", sentence)[:60] or "episodes")
    assert all(line.isprintable() for line in sentence.split("\n"))
    if sentence:
        return
    found = find_images(root)
    names = found.names
    assert len(names) == len(set(names)) <= files
    if root.is_dir():
        real = {os.path.realpath(root / name) for name in names}
        assert len(real) == len({(os.stat(path).st_dev, os.stat(path).st_ino) for path in real}) == len(names)
        assert all(Path(path).is_relative_to(root.parent.resolve()) for path in real)
    images = source.pools["train"].images
    assert images.dtype == torch.uint8
    known = [index for index, name in enumerate(class_folders(found).files.names) if name in shades]  # without loose images
    content = {bytes(images[index].numpy().tobytes()) for index in known}
    assert len(content) == len(known)
    used = [row for pool in source.pools.values() for row in pool.rows.tolist()]
    assert len(used) == len(set(used))
    again = folder(**arguments)
    assert class_split(again) == class_split(source)
    for split in ("train", "val", "test"):
        support, query = source.episode(split, 0)
        assert torch.equal(support.x, again.episode(split, 0).support.x)
        assert support.x.min() >= 0
        assert query.x.max() <= 1


@contextmanager
def workspace() -> Iterator[Path]:
    """Give an empty folder, with the cache inside."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch, limit(30):
        patch.setenv("METARUN_CACHE", os.path.join(name, "cache"))
        yield Path(name)


LOSSLESS = [kind for kind in KINDS if kind not in ("one", "jp2", "ico")]
LAYOUTS = {
    "classes": st.integers(5, 9),
    "images": st.integers(2, 4),
    "kinds": st.lists(st.sampled_from(LOSSLESS), min_size=1, max_size=5),
    "changes": st.lists(CHANGES, max_size=5),
    "top": st.sampled_from(["", "photos/", "a/b/"]),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo") or not hasattr(signal, "SIGALRM"), reason="this system has no pipes or no alarms")
@fuzz(30)
@given(**LAYOUTS)
def test_any_folder_deals_episodes_of_distinct_files_or_is_refused(
    classes: int, images: int, kinds: list[str], changes: list[Change], top: str
) -> None:
    layout = layout_of(classes, images, kinds, changes, top)
    with workspace() as place:
        on_disk(layout, place / "set")
        check(place / "set", layout.shades, len(layout.files) + 1)


NAMES = {
    "plain": lambda name: name,
    "backslash": lambda name: name.replace("/", "\\"),
    "dot": lambda name: f"./{name}",
    "absolute": lambda name: f"/{name}",
    "drive": lambda name: f"C:\\{name}",
    "outside": lambda name: f"../{name}",
    "double": lambda name: name.replace("/", "//"),
}


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="this system has no alarms")
@fuzz(30)
@given(
    **LAYOUTS,
    spelling=st.sampled_from(list(NAMES)),
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]),
    damage=st.sampled_from(["", "", "", "flip", "cut", "junk before", "junk after", "encrypted"]),
    seed=st.integers(0, 2**32 - 1),
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_any_zip_deals_episodes_of_distinct_files_or_is_refused(
    classes: int, images: int, kinds: list[str], changes: list[Change], top: str, spelling: str, method: int, damage: str, seed: int
) -> None:
    layout = layout_of(classes, images, kinds, changes, top)
    draw = random.Random(seed)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in layout.files.items():
            if draw.random() < 0.1:
                archive.writestr(name.rpartition("/")[0] + "/", b"")
            archive.writestr(NAMES[spelling](name) if draw.random() < 0.9 else name, data)
        for name, target in layout.links.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
    data = bytearray(buffer.getvalue())
    place = draw.randrange(len(data))
    if damage == "flip":
        data[place] ^= 1 << draw.randrange(8)
    elif damage == "encrypted":
        data[6] |= 1
        data[data.index(b"PK\x01\x02") + 8] |= 1
    data = {"cut": data[:place], "junk before": b"junk" + data, "junk after": data + b"junk"}.get(damage, data)
    with workspace() as folder_:
        (folder_ / "set.zip").write_bytes(data)
        check(folder_ / "set.zip", {} if damage == "flip" else layout.shades, len(layout.files))
