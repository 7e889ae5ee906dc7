"""The facts about the machine, and the data of the other parts."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from benchmarks.machine import facts, version

from metarun.wiring.build import build_source

from .configs import composed
from .parts import Note, Options

PACKAGES = ("numpy", "triton", "hydra-core", "omegaconf", "tensorboard", "matplotlib", "pillow", "pytest", "pytest-xdist", "tqdm")


def machine(options: Options, note: Note) -> list[str]:
    """Note versions and the device; draw the glyphs, which the cache then keeps for the other parts."""
    note("facts", facts() | {name: version(name) for name in PACKAGES})
    note("cuda", cuda() if options.device == "cuda" else None)
    build_source(composed(("task=glyphs",)))
    return []


def cuda() -> dict[str, Any]:
    """Return the facts about the first CUDA device."""
    properties = torch.cuda.get_device_properties(0)
    return {
        "device": properties.name,
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "devices": torch.cuda.device_count(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "triton": importlib.util.find_spec("triton") is not None,
    }
