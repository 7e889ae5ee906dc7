"""Images from a folder or a zip as one uint8 tensor, and the cache of these tensors.

metarun works without the cache: if a cache file cannot be read or written, each run makes the images again. With the cache, a set may
be larger than RAM: metarun writes the file image by image, and maps the file into memory instead of reading it.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import secrets
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import PIL
import torch
from PIL import Image, ImageOps
from torch import Tensor

from metarun.errors import UserError, first_line
from metarun.files.cache import cache_folder
from metarun.tasks.sampling import LARGE

log = logging.getLogger(__name__)

_RECIPE = 1
"""Part of every cache key of decoded images; raise it when `decode` changes a pixel."""

_PORTION = 1000
"""Images of one portion; metarun decodes a whole portion before it begins the next one."""

_NOT_IMAGES = frozenset(
    (
        *(".txt", ".md", ".rst", ".log", ".html", ".htm", ".pdf", ".doc", ".docx", ".xls", ".xlsx", ".csv", ".tsv"),
        *(".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".db", ".sqlite", ".lnk", ".sha256", ".md5"),
        *(".py", ".ipynb", ".sh", ".m", ".mat", ".npy", ".npz", ".pkl", ".pt", ".h5", ".mp3", ".wav", ".mp4", ".mov", ".avi"),
        *(".zip", ".gz", ".tar", ".tgz", ".bz2", ".xz", ".7z", ".rar"),
    )
)
"""Endings of files that metarun skips. Any other file must be an image, so that no photograph is lost silently."""


@dataclass(frozen=True)
class ImageFiles:
    """The image files below a folder or inside a zip.

    root: the folder or zip. names: paths relative to it, "/" between the parts, sorted. stamp: changes whenever a file does.
    """

    root: Path
    names: tuple[str, ...]
    stamp: str


def find_images(root: str | Path) -> ImageFiles:
    """List the images of a folder or zip without reading them; UserError if the folder or zip does not exist.

    The list leaves out hidden files, `__MACOSX`, and files whose ending is not an image's (text, tables, archives, …).
    """
    root = Path(root).expanduser()
    if not root.exists():
        raise UserError(f"there is no folder or zip '{root}'.")
    entries = _walk(root) if root.is_dir() else _list_zip(root)
    facts = {name: fact for name, fact in sorted(entries.items()) if _may_be_image(PurePosixPath(name))}
    stamp = hashlib.sha256(json.dumps([str(root.resolve()), facts]).encode()).hexdigest()
    return ImageFiles(root, tuple(facts), stamp)


def read_images(files: ImageFiles, *, size: int, channels: int, name: str) -> Tensor:
    """Return the images as uint8 (M, channels, size, size) in the order of `files.names`, from the cache if it has them.

    name: prefix of the cache file's name. Raises UserError with the name of the first file that is not readable as an image.
    """
    facts = [_RECIPE, PIL.__version__, files.stamp, size, channels]
    return cached(name, facts, (len(files.names), channels, size, size), lambda: _decode_all(files, size, channels))


def decode(data: bytes, *, size: int, channels: int) -> np.ndarray:
    """Decode one image of any format Pillow reads to uint8 (size, size, channels), channels 1 (grey) or 3 (RGB).

    The image is turned as its EXIF data say, and blended onto white if it is transparent. Then the shorter side is resized to `size`
    (Lanczos), and the centre is cropped.
    """
    with Image.open(io.BytesIO(data)) as opened:
        opened.draft(opened.mode, (2 * size, 2 * size))  # the JPEG decoder then skips detail that the resizing would drop
        image = _flatten(ImageOps.exif_transpose(opened))
    image = ImageOps.fit(image.convert("L" if channels == 1 else "RGB"), (size, size), method=Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(size, size, channels)


def cached(name: str, facts: object, shape: tuple[int, ...], make: Callable[[], Iterable[np.ndarray]]) -> Tensor:
    """Return the images of `make()` as one uint8 tensor of `shape`, from the cache file if there is one.

    The file's name is `name` and a hash of `facts` (any JSON value). The file is 32 bytes of SHA-256 and then an array in NumPy's format;
    a rename puts the whole file in place. A damaged file is made again. If the file cannot be written, the tensor is returned all the
    same. Both cases log one warning. A tensor of more than `LARGE` bytes is the mapped file: do not write to the tensor.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder() / f"{name}-{digest}.bin"
    kept = _load(path)
    if kept is None and _store(path, shape, make):
        kept = _load(path)
    if kept is not None:
        return kept
    images = np.empty(shape, dtype=np.uint8)
    for row, image in enumerate(make()):
        images[row] = image
    return torch.from_numpy(images)


def _load(path: Path) -> Tensor | None:
    try:
        with path.open("rb", buffering=0) as file:
            expected = file.read(32)
            if hashlib.file_digest(file, "sha256").digest() != expected:
                raise ValueError("its checksum is wrong")
            file.seek(32)
            if os.fstat(file.fileno()).st_size > LARGE:
                return _map(file)
            return torch.from_numpy(np.lib.format.read_array(file, allow_pickle=False))
    except OSError:
        return None  # if the file is not just absent, `_store` warns
    except ValueError as error:
        log.warning("the cache file %s cannot be used (%s); metarun makes its images again.", path, error)
        return None


def _map(file: io.FileIO) -> Tensor:
    """Map the array at the file's position. The system reads a page at its first use, and all processes share the pages."""
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the warning that the array is not writable
        return torch.from_numpy(np.memmap(file, dtype, "r", file.tell(), shape))


def _store(path: Path, shape: tuple[int, ...], make: Callable[[], Iterable[np.ndarray]]) -> bool:
    """Write the file; return whether that succeeded."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write(temporary, shape, make)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        log.warning("cannot write the cache file %s (%s); without it every run makes the images again.", path, error)
        return False
    return True


def _write(path: Path, shape: tuple[int, ...], make: Callable[[], Iterable[np.ndarray]]) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    digest = hashlib.sha256(header.getvalue())
    with path.open("wb") as file:
        file.write(bytes(32) + header.getvalue())
        for image in make():
            data = image.tobytes()
            digest.update(data)
            file.write(data)
        file.seek(0)
        file.write(digest.digest())
        file.flush()
        os.fsync(file.fileno())


def _walk(root: Path) -> dict[str, list[int]]:
    def refuse(error: OSError) -> None:
        raise UserError(f"cannot read the folder '{error.filename}' ({error.strerror}).")

    facts = {}
    for folder, below, names in os.walk(root, followlinks=True, onerror=refuse):
        below[:] = [name for name in below if not _hidden(name)]
        for path in (Path(folder, name) for name in names if not _hidden(name)):
            if path.exists():  # skips a dangling link
                facts[path.relative_to(root).as_posix()] = [path.stat().st_size, path.stat().st_mtime_ns]
    return facts


def _list_zip(root: Path) -> dict[str, list[int]]:
    try:
        with zipfile.ZipFile(root) as archive:
            return {info.filename: [info.file_size, info.CRC] for info in archive.infolist() if not info.is_dir()}
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"'{root}' is neither a folder nor a complete zip file ({error}).") from error


def _hidden(part: str) -> bool:
    return part.startswith(".") or part == "__MACOSX"


def _may_be_image(path: PurePosixPath) -> bool:
    return not any(_hidden(part) for part in path.parts) and path.suffix.lower() not in _NOT_IMAGES


@contextmanager
def _reader(root: Path) -> Iterator[Callable[[str], bytes]]:
    if root.is_dir():
        yield lambda name: (root / name).read_bytes()
    else:
        with zipfile.ZipFile(root) as archive:
            yield archive.read


def _decode_all(files: ImageFiles, size: int, channels: int) -> Iterator[np.ndarray]:
    """Yield the images (channels, size, size), in the order of the names."""
    log.info("reading %d images of %s (kept in %s for the next run)", len(files.names), files.root, cache_folder())
    with _reader(files.root) as read:

        def decode_file(name: str) -> np.ndarray:
            try:
                return decode(read(name), size=size, channels=channels).transpose(2, 0, 1)
            except Exception as error:  # Pillow's readers raise exceptions of every kind on bad bytes
                reason = first_line(error)
                raise UserError(f"cannot read '{name}' of '{files.root}' as an image ({reason}); repair or remove the file.") from error

        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            for start in range(0, len(files.names), _PORTION):  # so that decoding does not run far ahead of writing
                yield from pool.map(decode_file, files.names[start : start + _PORTION])


def _flatten(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits (Pillow would clip it), and blend transparent images onto white."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image
