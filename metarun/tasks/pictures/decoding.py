"""The pixels of one image file: any format of `FORMATS` becomes 8 bits per channel, in bounded memory.

Pillow may hand PostScript and some other formats to external programs, and has readers that few people use. metarun therefore names the
formats that Pillow may try. It never opens another one, whatever the file is called.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError, features

from metarun.errors import first_line

FORMATS = ("BMP", "GIF", "JPEG", "PPM", "PNG", "TIFF", "WEBP", "AVIF", "HEIF", "JPEG2000", "ICO", "PCX", "QOI", "SGI", "SUN")
"""The formats that metarun reads, where Pillow has them, and TGA by its ending, since a TGA file has no signature."""

MOST_PIXELS = 400_000_000
"""Images of more pixels are refused. Pillow holds up to 4 bytes of a pixel. A JPEG counts at the reduced size at which it is decoded."""

_LARGE = 89_000_000
"""Images of more pixels are reduced in bands before they are resized, so that metarun needs little memory beside Pillow's."""

_BAND = 1 << 24
"""Pixels of one band."""

_RAW = frozenset(
    (
        *(".3fr", ".arw", ".cr2", ".cr3", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw"),
        *(".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
    )
)
"""Endings of raw photographs. Most of them are TIFF files in which Pillow would find a thumbnail only."""

_SIGNATURES = (
    (b"%!PS", "PostScript, which metarun hands to no program; convert it to PNG"),
    (b"\xc5\xd0\xd3\xc6", "PostScript, which metarun hands to no program; convert it to PNG"),
    (b"%PDF", "PDF; convert its pages to PNG"),
    (b"8BPS", "a Photoshop document; export it as PNG"),
    (b"<svg", "SVG; convert it to PNG"),
    (b"<?xml", "XML or SVG; convert images to PNG"),
    (b"PK\x03\x04", "a zip archive; unpack it"),
    (b"\xff\x0a", "JPEG XL, which Pillow here cannot read; convert it to PNG or JPEG"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL, which Pillow here cannot read; convert it to PNG or JPEG"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 file that Pillow here cannot read; convert it to PNG"),
    (b"II*\0", "a TIFF file of a kind that Pillow cannot read, or a damaged one; save it with 8 or 16 bits per channel"),
    (b"MM\0*", "a TIFF file of a kind that Pillow cannot read, or a damaged one; save it with 8 or 16 bits per channel"),
    (b"\xff\xd8", "a damaged JPEG file"),
    (b"\x89PNG", "a damaged PNG file"),
    (b"GIF8", "a damaged GIF file"),
)
"""How files begin that metarun cannot read, and the reason for the message."""

_BRANDS = {"HEIF": (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"), "AVIF": (b"avif", b"avis"), "CR3": (b"crx ",)}
"""Formats of images in the container that videos have too, and their marks. Cameras call HEIF files HEIC."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The value of EXIF's orientation -> the operation that shows the image upright."""


class UnreadableError(Exception):
    """A file has no image that metarun can read. The message is a short reason, without the file's name."""


class Depth(NamedTuple):
    """The values of one image with more than 8 bits per channel.

    kind: such as "16-bit integers". white: the value that becomes 255. high: the largest value of the image.
    """

    kind: str
    white: float
    high: float

    @property
    def dark(self) -> bool:
        """Whether all values lie in the lowest sixteenth of the range, so that the image is black or nearly black."""
        return self.high > 0 and 16 * self.high <= self.white


class Budget:
    """Lets threads hold at most `most` units together; a thread that is alone may hold more."""

    def __init__(self, most: int) -> None:
        self._most, self._used, self._changed = most, 0, threading.Condition()

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Wait until `amount` units are free, and hold them in the block."""
        amount = min(amount, self._most)
        with self._changed:
            self._changed.wait_for(lambda: self._used + amount <= self._most)
            self._used += amount
        try:
            yield
        finally:
            with self._changed:
                self._used -= amount
                self._changed.notify_all()


_PIXELS = Budget(64_000_000)
"""The pixels that all threads decode at one time."""

_OPENING = threading.Lock()
"""Held while Pillow's limit of pixels is off; `MOST_PIXELS` replaces this limit."""


def decode(data: bytes, *, size: int, channels: int, name: str = "", depths: list[Depth] | None = None) -> np.ndarray:
    """Decode one image to uint8 (size, size, channels), channels 1 (grey) or 3 (RGB).

    The image is turned as its EXIF data say, and blended onto white if it is transparent. Then the shorter side is resized to `size`
    (Lanczos), and the centre is cropped. A file of several images gives the first one. An integer image becomes 8 bits by the range of its
    type; a float image must have values in [0, 1].

    name: the file's name, whose ending tells TGA files and raw photographs. depths: receives the values of a deep image.
    Raises UnreadableError, or an exception of Pillow, where there is no image.
    """
    if not data:
        raise UnreadableError("empty")
    ending = PurePosixPath(name).suffix.lower()
    if ending in _RAW:
        raise UnreadableError(f"a raw photograph ({ending}); develop it to JPEG or TIFF")
    with _open(data, ending) as opened:
        return shaped(opened, size=size, channels=channels, depths=depths)


def shaped(opened: Image.Image, *, size: int, channels: int, depths: list[Depth] | None = None) -> np.ndarray:
    """Return a Pillow image as `decode` returns a file: uint8 (size, size, channels). Pixels in memory stay as they are."""
    mode, whole = "L" if channels == 1 else "RGB", math.prod(opened.size)
    opened.draft(opened.mode, (2 * size, 2 * size))  # the JPEG decoder then skips detail that the resizing would drop
    # A progressive JPEG is held whole, as coefficients, whatever the size of the result.
    pixels = whole if opened.info.get("progressive") else math.prod(opened.size)
    if pixels > MOST_PIXELS:
        raise UnreadableError(f"{opened.width} x {opened.height} pixels, more than {MOST_PIXELS // 10**6} million; make it smaller")
    with _PIXELS.hold(pixels):
        depth = _depth(opened)
        factor = max(1, min(opened.size) // (4 * size)) if pixels > _LARGE else 1
        image = _upright(opened, _reduced(opened, depth, mode, factor, depths))
    image = ImageOps.fit(image, (size, size), method=Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(size, size, channels)


def reason(error: Exception) -> str:
    """Return a short reason why a file could not be read as an image."""
    if isinstance(error, UnreadableError):
        return str(error)
    if isinstance(error, MemoryError):
        return "not enough memory"
    if text := getattr(error, "strerror", None):  # the system's word on a file
        return str(text)
    text = first_line(error)
    return text if "truncated" in text else f"damaged or not supported by Pillow: {text}"


def passes(error: Exception) -> bool:
    """Return whether a file that gave this error may be readable later as it is: the system refused it, or memory was short."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None)


@functools.cache
def readers() -> tuple[str, ...]:
    """Return those of `FORMATS` that can be read here. pillow-heif, where it is installed, reads HEIF."""
    Image.init()  # registers the formats, once
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _open(data: bytes, ending: str) -> Image.Image:
    with _OPENING:
        formats = [*readers(), *(["TGA"] if ending == ".tga" else [])]
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(data), formats=formats)
        except UnidentifiedImageError:
            raise UnreadableError(_unidentified(data)) from None
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _unidentified(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        kind = next((kind for kind, brands in _BRANDS.items() if data[8:12] in brands), "video")
        shown = kind.replace("HEIF", "HEIC")
        if kind in Image.OPEN:
            return f"a damaged {shown} file"
        needed = "install pillow-heif (pip install 'metarun[heic]'), or convert it" if kind == "HEIF" else "convert it"
        return f"{shown}, which Pillow here cannot read; {needed} to JPEG"
    known = (text for start, text in _SIGNATURES if data.startswith(start) or data[:64].lstrip().startswith(start))
    return next(known, "no image of a format that metarun reads")


def _depth(opened: Image.Image) -> Depth | None:
    """Return kind and white of an image with one channel of more than 8 bits; None for 8 bits."""
    tags = getattr(opened, "tag_v2", {})
    bits = tags.get(ExifTags.Base.BitsPerSample, (16,))[0]
    if opened.mode.startswith("I;"):
        return Depth(f"{bits}-bit integers", (1 << bits) - 1, 0)
    if opened.mode == "I":
        signed = tags.get(ExifTags.Base.SampleFormat, (1,))[0] == 2
        return Depth(f"{bits}-bit {'signed ' if signed else ''}integers", (1 << (bits - signed)) - 1, 0)
    return Depth("floats", 1, 0) if opened.mode == "F" else None


def _reduced(opened: Image.Image, depth: Depth | None, mode: str, factor: int, depths: list[Depth] | None) -> Image.Image:
    """Return the image in `mode`; where the factor is above 1, each pixel is the mean of factor x factor pixels."""
    inverted = getattr(opened, "tag_v2", {}).get(ExifTags.Base.PhotometricInterpretation) == 0
    opened.load()
    if factor == 1:
        return _flatten(opened, depth, inverted, depths).convert(mode)
    width, height = opened.size
    reduced = Image.new(mode, (-(-width // factor), -(-height // factor)))
    rows = factor * max(1, _BAND // (width * factor))
    for top in range(0, height, rows):
        band = opened.crop((0, top, width, min(top + rows, height)))
        reduced.paste(_flatten(band, depth, inverted, depths).convert(mode).reduce(factor), (0, top // factor))
    return reduced


def _upright(opened: Image.Image, image: Image.Image) -> Image.Image:
    """Return the image turned as the EXIF data of the opened file say; damaged EXIF data do not count."""
    try:
        turn = _TURNS.get(opened.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's reader of EXIF raises exceptions of every kind on bad bytes
        turn = None
    return image if turn is None else image.transpose(turn)


def _flatten(image: Image.Image, depth: Depth | None, inverted: bool, depths: list[Depth] | None) -> Image.Image:
    """Scale a deep image to 8 bits (Pillow would clip it), and blend transparent images onto white."""
    if depth is not None:
        return Image.fromarray(_scaled(image, depth, inverted, depths))
    if image.mode == "LAB":
        return _from_lab(image)
    if image.has_transparency_data:
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image


def _scaled(image: Image.Image, depth: Depth, inverted: bool, depths: list[Depth] | None) -> np.ndarray:
    """Return a deep image as uint8 (H, W); `inverted` says that its format gives white the value 0."""
    values = np.asarray(image)
    if depth.kind == "32-bit integers":
        values = values.view(np.uint32)  # Pillow's 32-bit integers are signed
    low, high = values.min().item(), values.max().item()
    if not (low >= 0 and high <= depth.white):  # false for NaN too
        found = "some that are not numbers" if low != low else f"from {low:.6g} to {high:.6g}"
        raise UnreadableError(f"{depth.kind} {found}, but black is 0 and white is {depth.white:.6g}; save it with 8 or 16 bits")
    if depths is not None:
        depths.append(depth._replace(high=high))
    step = (int(depth.white) + 1) // 256
    eight = (values * 255.0).round() if depth.kind == "floats" else values // step
    eight = 255 - eight if inverted else eight
    clear = image.info.get("transparency")
    return np.where(values == clear, 255, eight).astype(np.uint8) if isinstance(clear, int) else eight.astype(np.uint8)


def _from_lab(image: Image.Image) -> Image.Image:
    if not features.check("littlecms2"):
        raise UnreadableError("Lab colours, which Pillow here cannot convert; save it as RGB")
    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB")
    assert converted is not None  # None only where the image is changed in place
    return converted
