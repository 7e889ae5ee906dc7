"""Configs as `metarun train` composes them, and the settings of metarun that are measured side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from metarun.cli.jobs import register_resolvers

VARIANTS: dict[str, tuple[str, ...]] = {
    "metarun": (),
    "metarun, eager": ("device.compile=false",),
    "metarun, compiled": ("device.compile=true",),
    "metarun, recomputing": ("algo.recompute=true",),
}
"""Overrides by the name that a row gives among its contenders."""


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the resolved config of `metarun train` with these overrides."""
    register_resolvers(claiming=False)
    with initialize_config_module("metarun.configs", version_base="1.3"):
        config = OmegaConf.to_container(compose("train", overrides=list(overrides)), resolve=True, throw_on_missing=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def offered(names: Sequence[str], overrides: Sequence[str]) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Return overrides by name of the variants whose keys a row's config has, and a sentence for each of the others."""
    config = composed(overrides)
    lacking = {name: [key for key in (override.split("=")[0] for override in VARIANTS[name]) if not has(config, key)] for name in names}
    found = {name: (*overrides, *VARIANTS[name]) for name in names if not lacking[name]}
    return found, [f"{name} is absent: there is no {', '.join(keys)} here." for name, keys in lacking.items() if keys]


def has(config: Mapping[str, Any], key: str) -> bool:
    """Return whether a config has a dotted key."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True
