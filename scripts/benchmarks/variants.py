"""Configs as `metarun train` composes them, and the variants of metarun that a row compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

VARIANTS: dict[str, tuple[str, ...]] = {
    "metarun": (),
    "metarun, eager": ("device.compile=false",),
    "metarun, compiled": ("device.compile=true",),
    "metarun, recomputing": ("algo.recompute=true",),
}
"""Overrides by the name of the contender."""


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the resolved config of `metarun train` with these overrides."""
    with initialize_config_module("metarun.configs", version_base="1.3"):
        config = OmegaConf.to_container(compose("train", overrides=list(overrides)), resolve=True, throw_on_missing=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def offered(names: Sequence[str], overrides: Sequence[str]) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Return the overrides of the variants whose keys a row's config has, by name, and a sentence for each other variant."""
    config = composed(overrides)
    lacking = {name: [key for key in (override.split("=")[0] for override in VARIANTS[name]) if not has(config, key)] for name in names}
    possible = {name: (*overrides, *VARIANTS[name]) for name in names if not lacking[name]}
    return possible, [f"{name} is absent: this config has no {', '.join(keys)}." for name, keys in lacking.items() if keys]


def has(config: Mapping[str, Any], key: str) -> bool:
    """Return whether a config has a dotted key."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True
