"""Fixtures for tests of the command line, which runs inside the test process. Ask for them with `pytest_plugins = ("command_line",)`."""

from __future__ import annotations

import logging
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from metarun.cli import main as cli


@dataclass(frozen=True)
class Answer:
    """What a command line gave back."""

    code: int
    out: str
    err: str


CommandLine = Callable[..., Answer]


@contextmanager
def logging_restored() -> Iterator[None]:
    """Close the log files that Hydra opens for a run, and put back the handlers that were there."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        for handler in set(root.handlers) - set(handlers):
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)


@pytest.fixture(scope="session")
def keep_logging() -> Callable[[], AbstractContextManager[None]]:
    """Return `logging_restored`, for fixtures that run a command line once for many tests."""
    return logging_restored


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[CommandLine]:
    """Return a function that runs `metarun WORDS` in an empty folder; what it changes in the process is put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*words: object) -> Answer:
        capsys.readouterr()
        try:
            code: Any = cli.main([str(word) for word in words])
        except SystemExit as leaving:
            code = leaving.code
        out, err = capsys.readouterr()
        return Answer(int(code or 0), out, err)

    with logging_restored():
        yield run


@dataclass
class Calls:
    """Stands in for `metarun.commands`: notes what the command line hands over, and does what `answer` says."""

    answer: Callable[[dict[str, Any]], float] = lambda config: 0.5
    train: list[tuple[dict[str, Any], Path]] = field(default_factory=list)
    evaluate: list[tuple[dict[str, Any], Path]] = field(default_factory=list)
    predict: list[tuple[dict[str, Any], Path]] = field(default_factory=list)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Put a `Calls` in the place of the three commands, so that no job trains."""
    calls = Calls()

    def train(config: dict[str, Any], folder: Path) -> float:
        calls.train.append((config, folder))
        return calls.answer(config)

    def evaluate(config: dict[str, Any], folder: Path) -> dict[str, Any]:
        calls.evaluate.append((config, folder))
        return {"metric": "accuracy", "mean": calls.answer(config)}

    def predict(config: dict[str, Any], folder: Path) -> float:
        calls.predict.append((config, folder))
        return calls.answer(config)

    for function in (train, evaluate, predict):
        stub = types.ModuleType(f"metarun.commands.{function.__name__}")
        setattr(stub, function.__name__, function)
        monkeypatch.setitem(sys.modules, stub.__name__, stub)
    return calls
