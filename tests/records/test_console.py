"""What a terminal shows of the log."""

from __future__ import annotations

import logging
import warnings

import pytest

from metarun.records.console import UNTOLD, Console, adopt_torch, plain_warnings, sentence


def record(name: str, level: int, text: str, **more: object) -> logging.LogRecord:
    made = logging.LogRecord(name, level, "file.py", 1, text, None, None)
    made.__dict__.update(more)
    return made


@pytest.mark.parametrize(
    ("name", "level", "text", "shown"),
    [
        ("metarun.tasks.folder", logging.WARNING, "left out 2 files", "metarun: warning: left out 2 files"),
        ("metarun.tasks.folder", logging.INFO, "chosen: ways=3", "metarun: chosen: ways=3"),
        ("metarun.tasks.pictures.images", logging.INFO, "reading 9 images", None),
        ("metarun.compute.plan", logging.INFO, "the C kernels are not used", None),
        ("metarun.compute.plan", logging.WARNING, "no compiler", "metarun: warning: no compiler"),
        ("metarun", logging.ERROR, "seed 0 is refused.", "metarun: error: seed 0 is refused."),
        ("hydra.core.utils", logging.INFO, "Launching 2 jobs locally", None),
        ("torch._inductor", logging.WARNING, "slow\n  a second line", "metarun: warning: slow"),
        ("py.warnings", logging.WARNING, "/a b/net.py:12: UserWarning: odd sizes\n  warn('odd sizes')", "metarun: warning: odd sizes"),
        ("py.warnings", logging.WARNING, "/x.py:1: UserWarning: no (Triggered internally at ../aten/x.cpp:3.)", "metarun: warning: no"),
        ("py.warnings", logging.WARNING, "/x.py:1: FutureWarning: soon gone\n  x()", None),
        ("metarunner", logging.INFO, "another package", None),
    ],
)
def test_a_terminal_shows_sentences_and_nothing_of_the_machinery(name: str, level: int, text: str, shown: str | None) -> None:
    assert sentence(record(name, level, text)) == shown


def test_a_message_for_the_file_alone_is_not_shown() -> None:
    assert sentence(record("metarun", logging.ERROR, "the job failed", **UNTOLD)) is None


def test_a_handler_prints_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    Console().emit(record("metarun.tasks", logging.WARNING, "two images are black"))
    assert capsys.readouterr() == ("", "metarun: warning: two images are black\n")


def test_pythons_warnings_go_to_the_log_in_the_block_alone(caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with plain_warnings():
            warnings.warn("odd sizes", UserWarning, stacklevel=1)
    assert [sentence(each) for each in caplog.records] == ["metarun: warning: odd sizes"]


def test_torchs_messages_go_to_the_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("TORCH_LOGS", raising=False)
    logger = logging.getLogger("torch.made_up_for_this_test")
    logger.addHandler(logging.StreamHandler())
    logger.propagate = False
    adopt_torch()
    assert (logger.handlers, logger.propagate) == ([], True)
    own = logging.getLogger("torchlike_package")
    handler = logging.StreamHandler()
    own.addHandler(handler)
    adopt_torch()
    assert own.handlers == [handler]
    own.removeHandler(handler)
