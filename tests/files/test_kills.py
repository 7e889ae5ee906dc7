"""Processes that share a cache and a folder are killed at any moment, and what they leave is whole."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from forks import forked, kill, wait_for

from metarun.files.cache import private_folder, read_checked, write_checked
from metarun.files.lock import FolderLock
from metarun.files.writing import PREFIX, remove_leftovers
from metarun.tasks.pictures.images import cached


@pytest.fixture(autouse=True)
def shared_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_kill_leaves_a_whole_file_or_none() -> None:
    folder = private_folder()
    assert folder is not None

    def write_for_ever() -> None:
        for number in range(10**9):
            write_checked(folder / "file", bytes([number % 256]) * 300_000)

    draw = random.Random(0)
    for _ in range(8):
        children = forked(write_for_ever), forked(write_for_ever)
        wait_for((folder / "file").exists)
        time.sleep(draw.uniform(0.0, 0.02))
        kill(*children)
        content = read_checked(folder / "file")
        assert content == content[:1] * 300_000
    remove_leftovers(folder)
    assert [path.name for path in folder.iterdir()] == ["file"]


def images(pause: float) -> Iterator[np.ndarray]:
    for number in range(30):
        time.sleep(pause)
        yield np.full((1, 4, 4), number, dtype=np.uint8)


def test_kills_while_two_processes_decode_images_into_one_cache(shared_cache: Path) -> None:
    def read(pause: float = 0.02) -> torch.Tensor:
        return cached("x", ["facts"], (30, 1, 4, 4), lambda: images(pause))

    for _ in range(3):
        # The first child still decodes when the second one begins, however long the fork of a large process takes.
        children = forked(lambda: read(1.0)), forked(lambda: read(1.0))
        wait_for(lambda: len(list(shared_cache.glob(f"{PREFIX}*"))) == 2)
        kill(*children)
        shutil.rmtree(shared_cache)
    children = forked(read), forked(read)
    wait_for(lambda: list(shared_cache.glob(f"{PREFIX}*")))
    kill(children[0])
    os.waitpid(children[1], 0)
    assert torch.equal(read()[:, 0, 0, 0], torch.arange(30, dtype=torch.uint8))


def test_the_next_process_takes_the_folder_of_a_killed_one(tmp_path: Path) -> None:
    def hold() -> None:
        with FolderLock(tmp_path / "run"):
            (tmp_path / "held").touch()
            time.sleep(60)

    child = forked(hold)
    wait_for((tmp_path / "held").exists)
    kill(child)
    with FolderLock(tmp_path / "run"):
        pass
