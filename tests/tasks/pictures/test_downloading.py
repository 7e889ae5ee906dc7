"""Downloads through torchvision: each part is fetched into the folder, and what goes wrong is one sentence."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from metarun.errors import UserError
from metarun.tasks.pictures.downloading import download


def offer(monkeypatch: pytest.MonkeyPatch, fetch: Any) -> None:
    """Put a stand-in in the place of torchvision."""
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", types.SimpleNamespace(Letters=fetch))


def test_each_part_is_fetched_into_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []
    offer(monkeypatch, lambda *words, **keys: calls.append((words, keys)))
    download("Letters", "the letters", tmp_path, [{"train": True}, {"train": False}])
    assert calls == [((str(tmp_path),), {"download": True, "train": part}) for part in (True, False)]


def test_a_failed_download_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fetch(*_: object, **__: object) -> None:
        raise OSError("no network\nsecond line")

    offer(monkeypatch, fetch)
    with pytest.raises(UserError, match=r"downloading the letters to '.*' failed \(no network\); give task.root=DIR"):
        download("Letters", "the letters", tmp_path)


def test_without_torchvision_the_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(UserError, match=r"task\.download=true needs torchvision: pip install torchvision"):
        download("Letters", "the letters", tmp_path)
