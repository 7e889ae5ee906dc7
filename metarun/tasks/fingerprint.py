"""Fingerprints of data: a description that is small enough for a checkpoint, and that tells later what has changed."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch

from metarun.errors import counted
from metarun.tasks.pool import ClassPool

if TYPE_CHECKING:
    from metarun.tasks.pictures.image_files import ImageFiles

Fingerprint = dict[str, Any]
"""Plain values and tensors by name. "kind" says which of the functions below made it; {} is unknown data.

"name" is the name of the data set in the names of its classes or tasks; it does not count in a comparison.
"""

LISTED = 20_000
"""Images up to which a fingerprint names each image, in 16 bytes; beyond, it names all of them together."""
SAMPLE, READ = 200, 64 << 20
"""Images whose contents a fingerprint describes, and the bytes that it reads for them at most."""


@runtime_checkable
class WithFingerprint(Protocol):
    """A source that reads files, so that `metarun eval` and `metarun train resume=` can say whether the files have changed."""

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of the files; it does not depend on the place of the files."""


def fingerprint_of(source: object) -> Fingerprint:
    """Return the fingerprint of a source; {} where it has none."""
    return source.fingerprint() if isinstance(source, WithFingerprint) else {}


def of_images(files: ImageFiles) -> Fingerprint:
    """Return the fingerprint of image files: names, sizes, and the checksums of a sample, which depends on the names alone.

    A folder and a zip of this folder have equal fingerprints.
    """
    names = _without_common_folder(files.names)
    numbers = torch.tensor([_number(name) for name in names], dtype=torch.int64)
    sizes = torch.tensor(list(files.sizes), dtype=torch.int64)
    order = numbers.argsort()
    read, sample = 0, []
    for place in order[:SAMPLE].tolist():
        read += int(sizes[place])
        if read > READ:
            break
        with suppress(OSError):  # `read_images` names a file that cannot be read, unless the cache has its image
            sample.append([int(numbers[place]), _checksum(files, place)])
    found = {"kind": "images", "count": len(names), "sample": torch.tensor(sample, dtype=torch.int64).reshape(-1, 2)}
    listed = torch.stack([numbers[order], sizes[order]], dim=1)
    if len(names) <= LISTED:
        return {**found, "listed": listed}
    return {**found, "digest": hashlib.sha256(listed.numpy().tobytes()).hexdigest()}


def of_table(path: Path, rows: int, tasks: int) -> Fingerprint:
    """Return the fingerprint of a table: its rows, its tasks, and a digest of the file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"kind": "table", "rows": rows, "tasks": tasks, "digest": digest}


def of_pools(pools: Mapping[str, ClassPool]) -> Fingerprint:
    """Return the fingerprint of images in memory: classes, counts, and a digest of a sample of the images of each split."""
    hashed, count = hashlib.sha256(), 0
    for split, pool in sorted(pools.items()):
        total = sum(pool.counts)
        count += total
        hashed.update(repr((split, list(pool.names), list(pool.counts))).encode("utf-8", "backslashreplace"))
        chosen = torch.linspace(0, max(total - 1, 0), min(SAMPLE, total)).long()
        rows = chosen if pool.rows is None else pool.rows[chosen]
        hashed.update(pool.images[rows.to(pool.images.device)].cpu().numpy().tobytes())
    return {"kind": "pictures", "count": count, "digest": hashed.hexdigest()}


def joined(parts: Mapping[str, Fingerprint]) -> Fingerprint:
    """Return the fingerprint of data in several parts; {} where all parts are unknown."""
    found = {name: part for name, part in parts.items() if part}
    return {"kind": "sources", "sources": found} if found else {}


def files_of(found: Fingerprint) -> Fingerprint:
    """Return a fingerprint without the parts that describe images in memory, since those depend on the sizes of a config too."""
    if found.get("kind") == "sources":
        return joined({name: files_of(part) for name, part in found["sources"].items()})
    return {} if found.get("kind") == "pictures" else found


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in words what differs between two fingerprints; [] where nothing differs or one of them is unknown.

    before: from a checkpoint, so it may hold anything.
    """
    if not before or not now:
        return []
    if before.get("kind") != now.get("kind"):
        return ["the data are of another kind"]
    try:
        return _COMPARE.get(str(now["kind"]), _compare_others)(before, now)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError):
        return ["the checkpoint describes its data in a way that this metarun cannot read"]


def _compare_images(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    said = []
    if "listed" in before and "listed" in now:
        was, new = (dict(each["listed"].tolist()) for each in (before, now))
        added, removed = len(new.keys() - was.keys()), len(was.keys() - new.keys())
        resized = sum(was[name] != new[name] for name in was.keys() & new.keys())
        said += [f"{counted(added, 'image')} added"] if added else []
        said += [f"{counted(removed, 'image')} removed"] if removed else []
        said += [f"{counted(resized, 'image')} with another size of the file"] if resized else []
    elif before["count"] != now["count"]:
        said.append(f"{now['count']:,} images instead of {int(before['count']):,}")
    elif before.get("digest") != now.get("digest"):
        said.append("names or sizes of images differ")
    was, new = (dict(each["sample"].tolist()) for each in (before, now))
    both = was.keys() & new.keys()
    changed = sum(was[name] != new[name] for name in both)
    return [*said, f"the contents of {changed} of {len(both)} sampled images differ"] if changed else said


def _compare_table(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    said = [f"{now[name]:,} {name} instead of {int(before[name]):,}" for name in ("rows", "tasks") if now[name] != before[name]]
    return said or (["the values of the table differ"] if now["digest"] != before["digest"] else [])


def _compare_pictures(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    if now["count"] != before["count"]:
        return [f"{now['count']:,} images instead of {int(before['count']):,}"]
    return ["images or classes differ"] if now["digest"] != before["digest"] else []


def _compare_sources(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    both = [name for name in now["sources"] if name in before["sources"]]
    return [f"{name}: {words}" for name in both for words in differences(before["sources"][name], now["sources"][name])]


def _compare_features(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    said = differences(before["images"], now["images"])
    if before["weights"] != now["weights"]:
        said.append("the weights of the backbone of the features differ")
    return said


def _compare_others(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Compare the plain values of a fingerprint that a user's own source made."""
    return [f"{name} is {now[name]} instead of {before.get(name)}" for name in now if now[name] != before.get(name)]


_COMPARE: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], list[str]]] = {
    "images": _compare_images,
    "features": _compare_features,
    "table": _compare_table,
    "pictures": _compare_pictures,
    "sources": _compare_sources,
}


def _without_common_folder(names: Sequence[str]) -> list[str]:
    """Return the names without the folders in which all of them lie, as a zip has them around a folder's content."""
    parts = [name.split("/") for name in names]
    while parts and all(len(path) > 1 for path in parts) and len({path[0] for path in parts}) == 1:
        parts = [path[1:] for path in parts]
    return ["/".join(path) for path in parts]


def _number(name: str) -> int:
    """Return a number for a name; two names have the same one with a chance of 1 in 2^64."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "little", signed=True)


def _checksum(files: ImageFiles, place: int) -> int:
    """Return the CRC-32 of a file; the directory of a zip has it already."""
    return files.checks[place] if files.checks else zlib.crc32((files.root / files.names[place]).read_bytes())
