"""What all tests share: one thread, a seed for the tests' own draws, and real data or a reason to skip."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before torch is imported, and inherited by every command that a test starts: the runner has a process per core already, and
# results repeat bit for bit only at equal thread counts.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("MPLBACKEND", "agg")

import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded_global_generator() -> None:
    """Seed torch's global generator before each test, so that a test's own torch.randn repeats; product code never uses it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Return the folder of real data sets that METARUN_DATA names, or skip."""
    folder = os.environ.get("METARUN_DATA")
    if not folder:
        pytest.skip("METARUN_DATA is not set; it names a folder with omniglot/, caltech101/, movielens/ and glyphs/")
    if not Path(folder).is_dir():
        pytest.fail(f"METARUN_DATA={folder} is not a folder")
    return Path(folder)


@pytest.fixture(scope="session")
def omniglot_root(data_root: Path) -> Path:
    """Return the folder with Omniglot's two official zips, or skip."""
    return _existing(data_root / "omniglot")


@pytest.fixture(scope="session")
def caltech_zip(data_root: Path) -> Path:
    """Return the zip of 84x84 photographs, one folder per class, or skip."""
    return _existing(data_root / "caltech101" / "caltech101_84x84.zip")


def _existing(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"METARUN_DATA has no {path.parent.name}/{path.name}")
    return path
