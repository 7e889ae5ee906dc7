"""The pretraining set of a backbone, compared with the classes of a test, and the licence of the weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from metarun.errors import printable
from metarun.tasks.pictures.published import class_words
from metarun.types import TaskSource, WithOrigins

SHARED = {"cub": "imagenet"}
"""Data sets whose images are partly those of another one. The page of CUB-200-2011 (https://www.vision.caltech.edu/datasets/cub_200_2011)
warns of ImageNet."""

SHOWN = 5
"""Classes that a warning names."""


def pretraining_of(config: Mapping[str, Any], source: TaskSource, split: str) -> dict[str, Any] | None:
    """Return what the config says about the weights of its backbones; None where it says nothing.

    The result has "pretrained_on" and "license" (text or None), and about the classes of the split: "contained", the names of the data
    sets whose classes the pretraining set contains; "sharing", those with images in common; and "named", the classes with the name of a
    class of the pretraining set. metarun knows 651 of the names of ImageNet, so more classes may have such a name.
    """
    nodes = list(_backbones(config))
    trained_on, licences = ([str(node[key]) for node in nodes if node.get(key)] for key in ("pretrained_on", "license"))
    if not trained_on and not licences:
        return None
    said = {"pretrained_on": ", ".join(dict.fromkeys(trained_on)) or None, "license": ", ".join(dict.fromkeys(licences)) or None}
    origins = source.origins(split) if isinstance(source, WithOrigins) and trained_on else ()
    families = {_family(word) for text in trained_on for word in text.split(",")} - {""}
    data = dict.fromkeys(name.split("/")[0] for name in origins if "/" in name)
    contained = [name for name in data if any(family in _plain(name) for family in families)]
    sharing = [name for name in data if any(key in _plain(name) and of in families for key, of in SHARED.items())]
    known = {_plain(word) for pair in class_words().items() for word in pair} if "imagenet" in families and not contained else set()
    named = [name for name in origins if _plain(name.rsplit("/", 1)[-1]) in known]
    return {**said, "contained": contained, "sharing": sharing, "named": named, "split": split, "of": len(origins)}


def lines(found: Mapping[str, Any] | None) -> list[str]:
    """Return lines for a person about the result of `pretraining_of`: a warning if the pretraining had test classes, and the licence."""
    if found is None:
        return []
    said = []
    seen = f"metarun: the backbone was pretrained on {found['pretrained_on']}"
    kind = f"{found['split']} classes"
    if found["contained"]:
        said.append(f"{seen}, which contains the {kind} of {_listed(found['contained'])}; a score on them says little about new classes.")
    elif found["sharing"]:
        said.append(f"{seen}, which shares images with {_listed(found['sharing'])}; a score on them says less about new classes.")
    elif found["named"]:
        names = [name.rsplit("/", 1)[-1] for name in found["named"]]
        said.append(
            f"{seen}, and at least {len(names)} of the {found['of']} {kind} have the name of one of its classes ({_listed(names)}); "
            "the score says less about new classes."
        )
    if found["license"]:
        said.append(f"metarun: the weights of the backbone state the licence {found['license']}.")
    return [printable(line) for line in said]


def _backbones(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the nodes of the backbone and of the backbone of the features."""
    for node in (config.get("backbone"), (config.get("task") or {}).get("backbone")):
        if isinstance(node, Mapping):
            yield node


def _family(text: str) -> str:
    """Return the name of a data set without its size: "imagenet" for "ImageNet-1k"."""
    return _plain(re.split(r"[-_ ]?\d", text.strip(), maxsplit=1)[0])


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
