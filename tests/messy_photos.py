"""A folder of photographs as people have them: twelve classes of Caltech 101 with all that such a folder collects.

python tests/messy_photos.py METARUN_DATA/caltech101/caltech101_84x84.zip photos
"""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

CLASSES = {
    "butterfly": "Schmetterling größer",
    "cellphone": "cell phone",
    "chair": "chair",
    "crab": "蟹",
    "elephant": "ELEPHANT",
    "ferry": "ferry (2019)",
    "laptop": "laptop",
    "lotus": "lótus",
    "pizza": "pizza",
    "sunflower": "sun-flower",
    "umbrella": "umbrella",
    "watch": "watch & clock",
}
"""Caltech's name -> the name of the folder."""
SMALL, FEW, MANY = "pizza", 4, 30
"""The class that has few images, their number, and the number of the others."""
BROKEN = "chair/IMG 0005.JPG"
_FORMATS = ((".JPG", "JPEG", "RGB"), (".png", "PNG", "RGBA"), (".jpeg", "JPEG", "L"), (".PNG", "PNG", "RGB"), (".webp", "WEBP", "RGB"))


def messy(archive: Path, place: Path) -> Path:
    """Write the folder to `place` and return it. archive: the zip of Caltech 101 with one folder per class."""
    with zipfile.ZipFile(archive) as packed:
        for original, name in CLASSES.items():
            found = sorted(each for each in packed.namelist() if each.split("/")[-2] == original and not each.endswith("/"))
            images = (Image.open(io.BytesIO(packed.read(each))) for each in found[: FEW if original == SMALL else MANY])
            _write_class(place / name, images)
    (place / BROKEN).write_bytes((place / BROKEN).read_bytes()[:200])  # a download that stopped
    (place / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (place / "laptop" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (place / "watch & clock" / "notes.txt").write_text("prices", encoding="utf-8")
    (place / "to sort").mkdir()
    Image.new("RGB", (90, 90), "red").save(place / "loose.jpg")
    return place


def _write_class(place: Path, images: Iterator[Image.Image]) -> None:
    """Write images in several formats and modes, some of them in a folder of their own."""
    for number, image in enumerate(images):
        ending, form, mode = _FORMATS[number % len(_FORMATS)]
        folder = place / "von früher" if number % 7 == 6 else place
        folder.mkdir(parents=True, exist_ok=True)
        name = f"IMG {number:04}" if number % 2 else f"é{number}"
        image.convert(mode).save(folder / f"{name}{ending}", form)


if __name__ == "__main__":
    print(messy(Path(sys.argv[1]), Path(sys.argv[2])))
