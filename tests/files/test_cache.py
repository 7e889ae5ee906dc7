"""The cache folder follows the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from metarun.files.cache import cache_folder


def test_the_first_variable_that_is_set_chooses_the_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/somebody")
    monkeypatch.delenv("METARUN_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path("/somebody/.cache/metarun")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/metarun")
    monkeypatch.setenv("METARUN_CACHE", "~/mine")
    assert cache_folder() == Path("/somebody/mine")


def test_an_empty_variable_is_no_choice(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("METARUN_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/metarun")
