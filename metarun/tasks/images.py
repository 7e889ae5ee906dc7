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

from metarun.errors import UserError, printable
from metarun.files.cache import cache_folder, open_private, private_folder
from metarun.files.writing import PRIVATE, replacing
from metarun.tasks.decoding import Budget, Depth, decode, reason
from metarun.tasks.image_files import ImageFiles, reader
from metarun.tasks.sampling import LARGE

log = logging.getLogger(__name__)

_RECIPE = 2
"""Part of every cache key of decoded images; raise it when `decode` changes a pixel."""

_PORTION = 1000
"""Images of one portion; metarun decodes a whole portion before it begins the next one."""

_SHOWN = 10
"""Unreadable files that an error names."""

_BYTES = Budget(256 << 20)
"""The bytes of files that all threads hold at one time."""


def read_images(files: ImageFiles, *, size: int, channels: int, name: str) -> Tensor:
    """Return the images as uint8 (M, channels, size, size) in the order of `files.names`, from the cache if it has them.

    name: prefix of the cache file's name. Raises UserError with the names of the files that cannot be read as images.
    """
    facts = [_RECIPE, PIL.__version__, files.stamp, size, channels]

    def make() -> Iterator[np.ndarray]:
        log.info("reading %d images of %s (kept in %s for the next run)", len(files.names), printable(str(files.root)), cache_folder())
        return _decode_all(files, size, channels)

    return cached(name, facts, (len(files.names), channels, size, size), make)


def decode_images(files: ImageFiles, *, size: int, channels: int) -> Tensor:
    """Return the images as `read_images` does, without the cache. Raises UserError as `read_images` does."""
    images = np.empty((len(files.names), channels, size, size), dtype=np.uint8)
    for row, image in enumerate(_decode_all(files, size, channels)):
        images[row] = image
    return torch.from_numpy(images)


def cached(
    name: str, facts: object, shape: tuple[int, ...], make: Callable[[], Iterable[np.ndarray]], dtype: type[np.generic] = np.uint8
) -> Tensor:
    """Return the images of `make()` as one tensor of `shape` and of a NumPy type, from the cache file if there is one.

    The file's name is `name` and a hash of `facts` (any JSON value). The file is 32 bytes of SHA-256 and then an array in NumPy's format;
    a rename puts the whole file in place. A damaged file is made again. If the file cannot be written, the tensor is returned all the
    same. Both cases log one warning. A tensor of more than `LARGE` bytes is the mapped file: do not write to the tensor.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    folder = private_folder()
    path = None if folder is None else folder / f"{name}-{digest}.bin"
    kept = None if path is None else _load(path)
    if kept is None and path is not None and _store(path, shape, make, dtype):
        kept = _load(path)
    if kept is not None:
        return kept
    images = np.empty(shape, dtype=dtype)
    for row, image in enumerate(make()):
        images[row] = image
    return torch.from_numpy(images)


def _load(path: Path) -> Tensor | None:
    try:
        with open_private(path) as file:
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


def _map(file: io.BufferedReader) -> Tensor:
    """Map the array at the file's position. The system reads a page at its first use, and all processes share the pages."""
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the warning that the array is not writable
        return torch.from_numpy(np.memmap(file, dtype, "r", file.tell(), shape))


def _store(path: Path, shape: tuple[int, ...], make: Callable[[], Iterable[np.ndarray]], dtype: type[np.generic]) -> bool:
    """Write the file; return whether that succeeded."""
    try:
        _write(path, shape, make, dtype)
    except OSError as error:
        log.warning("cannot write the cache file %s (%s); without it every run makes the images again.", path, error)
        return False
    return True


def _write(path: Path, shape: tuple[int, ...], make: Callable[[], Iterable[np.ndarray]], dtype: type[np.generic]) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape})
    digest = hashlib.sha256(header.getvalue())
    with replacing(path, mode=PRIVATE, exact=True) as file:
        file.write(bytes(32) + header.getvalue())
        for image in make():
            data = image.tobytes()
            digest.update(data)
            file.write(data)
        file.seek(0)
        file.write(digest.digest())


def _decode_all(files: ImageFiles, size: int, channels: int) -> Iterator[np.ndarray]:
    """Yield the images (channels, size, size), in the order of the names; raise UserError at the end if some files have no image."""
    unreadable: dict[str, str] = {}
    depths: dict[str, Depth] = {}
    with reader(files) as read, ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:

        def decode_file(index: int) -> tuple[np.ndarray | str, list[Depth]]:
            """Return the image, or the reason why there is none; and the values of a deep image."""
            name, deep = files.names[index], list[Depth]()
            try:
                with _BYTES.hold(files.sizes[index]):
                    return decode(read(name), size=size, channels=channels, name=name, depths=deep).transpose(2, 0, 1), deep
            except Exception as error:  # Pillow's readers raise exceptions of every kind on bad bytes
                return reason(error), deep

        for start in range(0, len(files.names), _PORTION):  # so that decoding does not run far ahead of writing
            indices = range(start, min(start + _PORTION, len(files.names)))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns of damaged metadata, which do not matter here
                decoded = list(pool.map(decode_file, indices))
            for index, (image, deep) in zip(indices, decoded, strict=True):
                for depth in deep:
                    depths[depth.kind] = max(depth, depths.get(depth.kind, depth), key=lambda each: each.high)
                if isinstance(image, str):
                    unreadable[files.names[index]] = image
                elif not unreadable:
                    yield image
    _refuse(files, unreadable, depths.values())


def _refuse(files: ImageFiles, unreadable: Mapping[str, str], depths: Iterable[Depth]) -> None:
    """Raise UserError for files without an image, and for deep images that would all be black."""
    root = printable(str(files.root))
    named = [f"'{printable(name)}' ({printable(why)})" for name, why in list(unreadable.items())[:_SHOWN]]
    if len(unreadable) == 1:
        name, why = next(iter(unreadable.items()))
        raise UserError(f"cannot read '{printable(name)}' of '{root}' as an image ({printable(why)}); repair, convert or remove the file.")
    if unreadable:
        more = f" and {len(unreadable) - _SHOWN} more" if len(unreadable) > _SHOWN else ""
        raise UserError(
            f"cannot read {len(unreadable)} of the {len(files.names)} files of '{root}' as images: {', '.join(named)}{more}; "
            "repair, convert or remove these files."
        )
    for depth in depths:
        if depth.dark:
            raise UserError(
                f"the images of '{root}' with {depth.kind} have no value above {depth.high:.6g}, where {depth.white:.6g} is white, so they "
                "would all be nearly black; save them with 8 bits per channel, or scale them to the whole range."
            )
