"""Every kind of image becomes 8 bits rightly, or is refused with a reason; nothing is handed to another program."""

from __future__ import annotations

import io
import struct
import subprocess
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metarun.tasks.pictures import decoding as module
from metarun.tasks.pictures.decoding import Budget, Depth, UnreadableError, decode, reason

RAMP = np.linspace(0, 1, 64).reshape(8, 8)
"""All shades from black to white."""

SHADES = (255 * RAMP).astype(int)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(values: np.ndarray, order: str = "<", sample_format: int = 1, photometric: int = 1, bits: int | None = None) -> bytes:
    """Write the values as one strip of one channel: kinds of TIFF that Pillow reads and does not write."""
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    height, width = values.shape
    bits = bits or 8 * values.dtype.itemsize
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, height), (279, len(data))]
    tags += [(339, sample_format)]
    entries = b"".join(struct.pack(order + "HHII" if tag in (273, 279) else order + "HHIHxx", tag, 4 if tag in (273, 279) else 3, 1, value)
                       for tag, value in tags)  # fmt: skip
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8 + len(data))
    return head + data + struct.pack(order + "H", len(tags)) + entries + bytes(4)


def grey(data: bytes, **options: object) -> np.ndarray:
    return decode(data, size=8, channels=1, **options)[..., 0].astype(int)


DEEP = {
    "uint16": tiff((65535 * RAMP).astype(np.uint16)),
    "uint16, big-endian": tiff((65535 * RAMP).astype(np.uint16), ">"),
    "uint16, white is 0": tiff((65535 * (1 - RAMP)).astype(np.uint16), photometric=0),
    "int16": tiff((32767 * RAMP).astype(np.int16), sample_format=2),
    "uint32": tiff(((2**32 - 1) * RAMP).astype(np.uint32)),
    "int32": tiff(((2**31 - 1) * RAMP).astype(np.int32), sample_format=2),
    "int32, big-endian": tiff(((2**31 - 1) * RAMP).astype(np.int32), ">", sample_format=2),
    "float32": tiff(RAMP.astype(np.float32), sample_format=3),
    "float32, big-endian": tiff(RAMP.astype(np.float32), ">", sample_format=3),
    "float32, white is 0": tiff((1 - RAMP).astype(np.float32), sample_format=3, photometric=0),
    "PNG": encode(Image.fromarray((65535 * RAMP).astype(np.uint16))),
    "PGM of 12 bits": b"P5 8 8 4095 " + (4095 * RAMP).astype(">u2").tobytes(),
    "PGM in text": b"P2 8 8 1000 " + " ".join(map(str, (1000 * RAMP).astype(int).flatten())).encode(),
}


@pytest.mark.parametrize("kind", DEEP)
def test_deep_images_show_the_same_shades_as_8_bits(kind: str) -> None:
    assert abs(grey(DEEP[kind]) - SHADES).max() <= 1


def test_a_packed_tiff_of_12_bits_is_not_dark() -> None:
    """Two values of 12 bits fill three bytes; 0xFFF is white."""
    pairs = np.full((8, 4, 3), 0xFF, dtype=np.uint8).reshape(8, 12)
    packed = tiff(pairs, bits=12).replace(struct.pack("<HHIHxx", 256, 3, 1, 12), struct.pack("<HHIHxx", 256, 3, 1, 8))
    assert (grey(packed) == 255).all()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (tiff((255 * RAMP).astype(np.float32), sample_format=3), "floats from 0 to 255, but black is 0 and white is 1"),
        (tiff((RAMP - 0.5).astype(np.float32), sample_format=3), "floats from -0.5 to 0.5"),
        (tiff(np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32), sample_format=3), "floats some that are not numbers"),
        (tiff(np.full((8, 8), np.inf, dtype=np.float32), sample_format=3), "floats from inf to inf"),
        (tiff((1000 * RAMP - 1).astype(np.int32), sample_format=2), "32-bit signed integers from -1 to 999"),
        (tiff((1000 * RAMP - 1000).astype(np.int16), sample_format=2), "16-bit signed integers from -1000 to 0"),
        (b"Pf 8 8 -1.0\n" + (9 * RAMP).astype(np.float32).tobytes(), "floats from 0 to 9"),
        (tiff(RAMP, sample_format=3), "a TIFF file of a kind that Pillow cannot read"),
    ],
)
def test_a_deep_image_outside_black_and_white_is_refused_with_its_range(data: bytes, text: str) -> None:
    with pytest.raises(UnreadableError, match=text):
        grey(data)


def test_a_deep_image_tells_its_largest_value() -> None:
    depths: list[Depth] = []
    grey(tiff(np.full((8, 8), 4095, dtype=np.uint16)), depths=depths)
    grey(encode(Image.new("L", (8, 8), 3)), depths=depths)
    assert depths == [Depth("16-bit integers", 65535, 4095)]
    assert depths[0].dark
    assert not Depth("16-bit integers", 65535, 4096).dark
    assert not Depth("16-bit integers", 65535, 0).dark  # an image that is black


def test_transparent_pixels_are_white_in_every_mode() -> None:
    seen = Image.new("LA", (8, 8), (0, 255))
    seen.paste((0, 0), (0, 0, 8, 4))
    sixteen = Image.fromarray(np.where(RAMP < 0.5, 7, 0).astype(np.uint16))
    palette = Image.new("P", (8, 8), 1)
    palette.paste(0, (0, 0, 8, 4))
    palette.putpalette([0, 0, 0, 0, 0, 0])
    for data in (
        encode(seen),
        encode(seen.convert("RGBA"), "WEBP", lossless=True),
        encode(palette, transparency=0),
        encode(sixteen, transparency=7),
    ):
        assert (grey(data)[:4] == 255).all()
        assert (grey(data)[4:] == 0).all()


def test_lab_colours_are_converted() -> None:
    assert abs(grey(encode(Image.new("LAB", (8, 8), (255, 128, 128)), "TIFF")) - 255).max() <= 1
    red = decode(encode(Image.new("LAB", (8, 8), (138, 209, 195)), "TIFF"), size=8, channels=3)[0, 0]
    assert (abs(red.astype(int) - [255, 0, 0]) < 15).all()


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_the_first_of_several_images_counts(kind: str) -> None:
    first, second = Image.new("L", (8, 8), 200), Image.new("L", (8, 8), 10)
    assert abs(grey(encode(first, kind, save_all=True, append_images=[second])) - 200).max() <= 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_damaged_exif_data_do_not_cost_the_image(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert (grey(encode(Image.new("L", (8, 8), 99), kind, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")) == 99).all()


PICTURE = encode(Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)), "JPEG")


@pytest.mark.parametrize(
    ("data", "name", "text"),
    [
        (b"", "", "empty"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "1.png", "PostScript, which metarun hands to no program"),
        (b"\xc5\xd0\xd3\xc6" + bytes(40), "1.jpg", "PostScript"),
        (b"%PDF-1.7", "1.png", "PDF; convert its pages"),
        (b"\xd7\xcd\xc6\x9a" + bytes(60), "1.wmf", "no image of a format that metarun reads"),
        (b"8BPS" + bytes(60), "1.psd", "a Photoshop document"),
        (b" <svg xmlns='http://www.w3.org/2000/svg'/>", "1.svg", "SVG; convert it to PNG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "1.HEIC", "HEIC, which Pillow here cannot read; install pillow-heif"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "1", "video, which Pillow here cannot read"),
        (b"\xff\x0a" + bytes(60), "1.jxl", "JPEG XL"),
        (encode(Image.new("L", (9, 9)), "TIFF"), "1.DNG", r"a raw photograph \(\.dng\)"),
        (b"hello", "1.png", "no image of a format that metarun reads"),
        (PICTURE[:30], "1.jpg", "Truncated File Read"),
        (PICTURE[:2000], "1.jpg", "image file is truncated"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(data: bytes, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises((UnreadableError, OSError)) as raised:
        grey(data, name=name)
    assert text.replace("\\", "") in reason(raised.value)


def test_tga_is_read_by_its_ending_only() -> None:
    data = encode(Image.new("L", (9, 9), 77), "TGA")
    assert (grey(data, name="a/1.TGA") == 77).all()
    with pytest.raises(UnreadableError, match="no image of a format"):
        grey(data, name="a/1.png")


def png(width: int, height: int) -> bytes:
    """Write a PNG of this size with the data of its first row only."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (1, 1_000_000_000), (20_001, 20_000)])
def test_an_image_of_too_many_pixels_is_refused_with_the_numbers(width: int, height: int) -> None:
    with pytest.raises(UnreadableError, match=f"{width} x {height} pixels, more than 400 million"):
        grey(png(width, height))


def test_pillows_own_limit_is_the_same_afterwards() -> None:
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(UnreadableError):
        grey(png(60_000, 60_000))
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_large_image_is_reduced_in_bands_and_looks_like_the_image(mode: str, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shades = np.kron(RAMP, np.ones((50, 41)))
    image = Image.fromarray(shades.astype(np.float32)) if mode == "F" else Image.fromarray((255 * shades).astype(np.uint8))
    image = Image.fromarray((65535 * shades).astype(np.uint16)) if mode == "I;16" else image if mode == "F" else image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(image, "TIFF", exif=exif) if mode in ("CMYK", "F") else encode(image, exif=exif)
    whole = decode(data, size=8, channels=channels).astype(int)
    monkeypatch.setattr(module, "_LARGE", 1000)
    monkeypatch.setattr(module, "_BAND", 5000)
    assert abs(decode(data, size=8, channels=channels).astype(int) - whole).max() <= (3 if mode != "1" else 60)


def test_a_jpeg_is_decoded_at_a_reduced_size_so_that_its_pixels_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PIXELS", 3_000)
    image = Image.new("L", (400, 400), 99)
    assert (grey(encode(image, "JPEG")) == 99).all()
    for data in (encode(image, "JPEG", progressive=True), encode(image)):
        with pytest.raises(UnreadableError, match="pixels, more than"):
            grey(data)


def test_a_budget_lets_threads_hold_so_much_together_and_one_thread_more(tmp_path: Path) -> None:
    budget, held, most = Budget(10), [0], [0]

    def work(amount: int) -> None:
        for _ in range(50):
            with budget.hold(amount):
                held[0] += amount
                most[0] = max(most[0], held[0])
                held[0] -= amount

    threads = [threading.Thread(target=work, args=(amount,)) for amount in (3, 4, 6, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] <= 10
    with budget.hold(1000):
        pass
