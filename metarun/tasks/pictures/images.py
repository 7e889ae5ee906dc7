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
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
import torch
from torch import Tensor

from metarun.errors import UserError, counted, printable
from metarun.files.cache import cache_folder, open_private, private_folder
from metarun.files.writing import PRIVATE, replacing
from metarun.records.display import doing
from metarun.tasks.episode_sizes import NAMED
from metarun.tasks.pictures.decoding import Budget, Depth, decode, passes, readers, reason
from metarun.tasks.pictures.image_files import ImageFiles, reader
from metarun.tasks.sampling import LARGE

log = logging.getLogger(__name__)

_RECIPE = 2
"""Part of every cache key of decoded images; raise it when `decode` changes a pixel."""

_PORTION = 1000
"""Images of one portion; metarun decodes a whole portion before it begins the next one."""

_BYTES = Budget(256 << 20)
"""The bytes of files that all threads hold at one time."""


def read_images(files: ImageFiles, *, size: int, channels: int, name: str) -> Tensor:
    """Return the images as uint8 (M, channels, size, size) in the order of `files.names`, from the cache if it has them.

    name: prefix of the cache file's name. Raises UserError with the names of the files that cannot be read as images.
    """
    images, unreadable = try_images(files, size=size, channels=channels, name=name)
    if unreadable:
        raise UserError(complaint(files, unreadable))
    return images


def try_images(files: ImageFiles, *, size: int, channels: int, name: str) -> tuple[Tensor, dict[str, str]]:
    """Return the images as `read_images` does, black for each file that is no image, and the names of these files with the reason."""
    facts = [_RECIPE, PIL.__version__, readers(), files.stamp, size, channels]
    shape, unreadable = (len(files.names), channels, size, size), dict[str, str]()

    def make() -> Iterator[np.ndarray]:
        log.info("reading %d images of %s (kept in %s for the next run)", len(files.names), printable(str(files.root)), cache_folder())
        return _decode_all(files, size, channels, unreadable)

    try:
        with doing(f"reading {counted(len(files.names), 'image')} of {printable(files.root.name)}"):
            images = cached(name, facts, shape, make, notes=unreadable)
    except _PassingError:  # the next run may be able to read them, so the cache must not keep the result
        images = _in_memory(shape, lambda: _decode_all(files, size, channels, unreadable, may_pass=True))
    return images, unreadable


def decode_images(files: ImageFiles, *, size: int, channels: int) -> Tensor:
    """Return the images as `read_images` does, without the cache. Raises UserError as `read_images` does."""
    shape, unreadable = (len(files.names), channels, size, size), dict[str, str]()
    images = _in_memory(shape, lambda: _decode_all(files, size, channels, unreadable, may_pass=True))
    if unreadable:
        raise UserError(complaint(files, unreadable))
    return images


def complaint(files: ImageFiles, unreadable: Mapping[str, str], skip: str = "") -> str:
    """Return the sentence on files that cannot be read as images. skip: the key that leaves them out; "" where there is none."""
    root = printable(str(files.root))
    if len(unreadable) == 1:
        ((name, why),) = unreadable.items()
        remedy = f"repair, convert or remove the file{f', or leave it out with {skip}' if skip else ''}"
        return f"cannot read '{printable(name)}' of '{root}' as an image ({printable(why)}); {remedy}."
    remedy = f"repair, convert or remove these files{f', or leave them out with {skip}' if skip else ''}"
    return f"cannot read {len(unreadable)} of the {len(files.names)} files of '{root}' as images: {by_reason(unreadable)}; {remedy}."


def by_reason(unreadable: Mapping[str, str]) -> str:
    """Return the first names, each with its reason; one reason stands behind all names of which it is true."""
    first, alike = list(unreadable)[:NAMED], dict[str, list[str]]()
    for name in first:
        alike.setdefault(unreadable[name], []).append(f"'{printable(name)}'")
    more = f" and {len(unreadable) - NAMED} more" if len(unreadable) > NAMED else ""
    return ", ".join(f"{', '.join(names)} ({printable(why)})" for why, names in alike.items()) + more


class _PassingError(Exception):
    """A file could not be read for a reason that may pass, such as a missing permission."""


def cached(
    name: str,
    facts: object,
    shape: tuple[int, ...],
    make: Callable[[], Iterable[np.ndarray]],
    dtype: type[np.generic] = np.uint8,
    notes: dict[str, str] | None = None,
) -> Tensor:
    """Return the images of `make()` as one tensor of `shape` and of a NumPy type, from the cache file if there is one.

    notes: what `make` has to say about the images when it has made them all. The file keeps the notes, and they come back from it.

    The file's name is `name` and a hash of `facts` (any JSON value). The file is 32 bytes of SHA-256, an array in NumPy's format, and the
    notes as JSON if there are any; a rename puts the whole file in place. A damaged file is made again. If the file cannot be written, the
    tensor is returned all the same. Both cases log one warning. A tensor of more than `LARGE` bytes is the mapped file: do not write to it.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    folder = private_folder()
    path = None if folder is None else folder / f"{name}-{digest}.bin"
    notes = {} if notes is None else notes
    kept = None if path is None else _load(path, notes)
    if kept is None and path is not None and _store(path, shape, make, dtype, notes):
        kept = _load(path, notes)
    return _in_memory(shape, make, dtype) if kept is None else kept


def _in_memory(shape: tuple[int, ...], make: Callable[[], Iterable[np.ndarray]], dtype: type[np.generic] = np.uint8) -> Tensor:
    images = np.empty(shape, dtype=dtype)
    for row, image in enumerate(make()):
        images[row] = image
    return torch.from_numpy(images)


def _load(path: Path, notes: dict[str, str]) -> Tensor | None:
    try:
        with open_private(path) as file:
            expected = file.read(32)
            if hashlib.file_digest(file, "sha256").digest() != expected:
                raise ValueError("its checksum is wrong")
            file.seek(32)
            large = os.fstat(file.fileno()).st_size > LARGE
            images = _map(file) if large else torch.from_numpy(np.lib.format.read_array(file, allow_pickle=False))
            if text := file.read():
                notes.update(json.loads(text))
            return images
    except OSError:
        return None  # if the file is not just absent, `_store` warns
    except ValueError as error:
        log.warning("the cache file %s cannot be used (%s); metarun makes its images again.", path, error)
        return None


def _map(file: io.BufferedReader) -> Tensor:
    """Map the array at the file's position. The system reads a page at its first use, and all processes share the pages."""
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the warning that the array is not writable
        start = file.tell()
        images = torch.from_numpy(np.memmap(file, dtype, "r", start, shape))
    file.seek(start + images.numel() * images.element_size())
    return images


def _store(
    path: Path, shape: tuple[int, ...], make: Callable[[], Iterable[np.ndarray]], dtype: type[np.generic], notes: Mapping[str, str]
) -> bool:
    """Write the file; return whether that succeeded."""
    try:
        _write(path, shape, make, dtype, notes)
    except OSError as error:
        log.warning("cannot write the cache file %s (%s); without it every run makes the images again.", path, error)
        return False
    return True


def _write(
    path: Path, shape: tuple[int, ...], make: Callable[[], Iterable[np.ndarray]], dtype: type[np.generic], notes: Mapping[str, str]
) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape})
    digest = hashlib.sha256(header.getvalue())
    with replacing(path, mode=PRIVATE, exact=True) as file:
        file.write(bytes(32) + header.getvalue())
        for image in make():
            data = image.tobytes()
            digest.update(data)
            file.write(data)
        if notes:
            data = json.dumps(notes).encode()
            digest.update(data)
            file.write(data)
        file.seek(0)
        file.write(digest.digest())


def _decode_all(files: ImageFiles, size: int, channels: int, unreadable: dict[str, str], may_pass: bool = False) -> Iterator[np.ndarray]:
    """Yield the images (channels, size, size), in the order of the names; black where a file has no image.

    unreadable: receives the names of these files and the reasons. may_pass: whether a reason may be one that passes.

    Raises UserError at the end if deep images would all be black, and _PassingError for a reason that may pass.
    """
    unreadable.clear()
    depths: dict[str, Depth] = {}
    passing = False
    with reader(files) as read, ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:

        def decode_file(index: int) -> tuple[np.ndarray | Exception, list[Depth]]:
            """Return the image, or the reason why there is none; and the values of a deep image."""
            name, deep = files.names[index], list[Depth]()
            try:
                with _BYTES.hold(files.sizes[index]):
                    return decode(read(name), size=size, channels=channels, name=name, depths=deep).transpose(2, 0, 1), deep
            except Exception as error:  # Pillow's readers raise exceptions of every kind on bad bytes
                return error, deep

        for start in range(0, len(files.names), _PORTION):  # so that decoding does not run far ahead of writing
            indices = range(start, min(start + _PORTION, len(files.names)))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns of damaged metadata, which do not matter here
                decoded = list(pool.map(decode_file, indices))
            for index, (image, deep) in zip(indices, decoded, strict=True):
                for depth in deep:
                    depths[depth.kind] = max(depth, depths.get(depth.kind, depth), key=lambda each: each.high)
                if isinstance(image, Exception):
                    passing = passing or passes(image)
                    unreadable[files.names[index]] = reason(image)
                yield np.zeros((channels, size, size), dtype=np.uint8) if isinstance(image, Exception) else image
    _refuse_dark(files, depths.values())
    if passing and not may_pass:
        raise _PassingError


def _refuse_dark(files: ImageFiles, depths: Iterable[Depth]) -> None:
    """Raise UserError for deep images that would all be black."""
    for depth in depths:
        if depth.dark:
            raise UserError(
                f"the images of '{printable(str(files.root))}' with {depth.kind} have no value above {depth.high:.6g}, where "
                f"{depth.white:.6g} is white, so they would all be nearly black; save them with 8 bits per channel, or scale them to the "
                "whole range."
            )
