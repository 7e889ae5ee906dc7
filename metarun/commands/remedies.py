"""What a user may change after a failure, named by keys that the run's config has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metarun.commands.overrides import leaves

TINY, LARGE = 1e-12, 1e4
"""Bounds of the size of the numbers that papers and released code have."""


def for_not_finite(config: Mapping[str, Any]) -> str:
    """Return a sentence on how to keep a training finite: smaller learning rates and gradient clipping.

    config: the run's. The sentence is empty where the config has neither a rate nor `optimizer.clip_norm`.
    """
    if extremes := extreme_values(config):
        return f" Change {' or '.join(extremes)}, which is far from usual values."
    optimizer = config.get("optimizer", {})
    lower = inner_rates(config)
    lower += ["optimizer.lr"] if _is_rate(optimizer.get("lr")) else []
    clipped = optimizer.get("clip_norm") is not None
    lower += ["optimizer.clip_norm"] if clipped else []
    parts = [f"lower {' or '.join(lower)}"] if lower else []
    parts += ["set optimizer.clip_norm"] if "clip_norm" in optimizer and not clipped else []
    sentence = ", or ".join(parts)
    return f" {sentence[0].upper()}{sentence[1:]}." if sentence else ""


def extreme_values(config: Mapping[str, Any]) -> list[str]:
    """Return the keys of the algorithm, the network and the optimizer whose numbers are far larger or smaller than usual ones."""
    found = []
    for group in ("algo", "backbone", "optimizer"):
        for key, value in leaves({key: value for key, value in config.get(group, {}).items() if key != "recipe"}):
            if isinstance(value, float) and value != 0 and not TINY <= abs(value) <= LARGE:
                found.append(f"{group}.{key}={value:g}")
    return found


def inner_rates(config: Mapping[str, Any]) -> list[str]:
    """Return the keys of the algorithm's own learning rates: `algo.inner_lr`, `algo.update.lr` and their like.

    An inner rate of null is one that the algorithm chooses. `algo.recipe` holds no rates of the algorithm: it holds defaults for other
    groups.
    """
    algorithm = {key: value for key, value in config.get("algo", {}).items() if key != "recipe"}
    named = [(key, value) for key, value in leaves(algorithm) if key.rsplit(".", 1)[-1].split("_")[-1] == "lr"]
    return [f"algo.{key}" for key, value in named if _is_rate(value) or (value is None and key == "inner_lr")]


def _is_rate(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
