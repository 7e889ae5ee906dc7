"""The keys of a backbone that its class does not take: they say how metarun uses the module."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from metarun.backbones.classifier import HeadInit
from metarun.values import Finite, Length, Names, NormMode, Positive, Text
from metarun.wiring.fitting import annotations_of, fit_keys
from metarun.wiring.instantiate import TARGET, locate

ALWAYS = ("norm", "head_init")
"""The keys that no class of a backbone takes."""


@dataclass(frozen=True)
class Around:
    """Keys that every backbone may have.

    norm: how it normalises (`metarun.network`). head_init: the initial weights of a linear head on top.
    frozen: keep its weights and its statistics as they are, with dropout off.
    mean, std: of each channel; the inputs x become (x - mean) / std. None: as the weights say (`metarun.wiring.pretrained`).
    without: layers to replace by the identity, by their names in the module, such as "fc".
    keep_classifier: take the outputs of a classification layer as the embedding.
    pretrained_on, license: the data set and the licence of the weights.
    """

    norm: NormMode = "batch"
    head_init: HeadInit | None = None
    frozen: bool = False
    mean: Annotated[Sequence[Finite], Length(1)] | None = None
    std: Annotated[Sequence[Positive], Length(1)] | None = None
    without: Text | Names | None = None
    keep_classifier: bool = False
    pretrained_on: Text | None = None
    license: Text | None = None


def divided(node: Mapping[str, Any], key: str = "backbone") -> tuple[dict[str, Any], Around]:
    """Return the arguments of a backbone's class, with its `_target_`, and the keys around it.

    If the class has an argument with the name of one of these keys, such as `mean`, the class gets the value. key: the place of the node
    in the config, for messages. Raises UserError for a wrong value.
    """
    hints = annotations_of(Around)
    taken = _arguments(node)
    around = {key: value for key, value in node.items() if key in hints and (key in ALWAYS or key not in taken)}
    rest = {key: value for key, value in node.items() if key not in around}
    return rest, Around(**fit_keys(around, hints, f"{key}."))


def _arguments(node: Mapping[str, Any]) -> set[str]:
    """Return the names of the arguments of a node's class; none where they are unknown."""
    if not isinstance(node.get(TARGET), str):
        return set()
    try:
        return set(inspect.signature(locate(node[TARGET])).parameters)
    except (TypeError, ValueError):  # no function, or one written in C
        return set()
