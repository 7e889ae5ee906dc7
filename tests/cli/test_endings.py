"""How a command ends: the exit codes and the sentences of mistakes, bugs, full disks and interrupts, and the folders that stay."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from metarun.cli.signals import raise_signalled
from metarun.errors import Stopped, UserError

if TYPE_CHECKING:
    from command_line import Calls, CommandLine

pytest_plugins = ("command_line",)


def test_a_user_error_is_one_sentence_and_leaves_no_folder(command_line: CommandLine, calls: Calls) -> None:
    def refuse(config: object) -> float:
        raise UserError("no.")

    calls.answer = refuse
    answer = command_line("train")
    assert (answer.code, answer.out, answer.err) == (2, "", "metarun: no.\n")
    assert list(Path.cwd().iterdir()) == []


def test_a_user_error_after_something_was_written_keeps_the_folder(command_line: CommandLine, calls: Calls) -> None:
    def write_and_refuse(config: object) -> float:
        (calls.train[0][1] / "metrics.jsonl").touch()
        raise UserError("no.")

    calls.answer = write_and_refuse
    assert command_line("train").code == 2
    assert (calls.train[0][1] / "metrics.jsonl").exists()


@pytest.mark.parametrize("bug", [ValueError, KeyError, FileNotFoundError, AttributeError])
def test_a_bug_keeps_its_traceback(command_line: CommandLine, calls: Calls, bug: type[Exception]) -> None:
    def fail(config: object) -> float:
        raise bug("ours")

    calls.answer = fail
    with pytest.raises(bug, match="ours"):
        command_line("train")


def test_a_full_disk_is_no_bug(command_line: CommandLine, calls: Calls) -> None:
    def fail(config: object) -> float:
        raise OSError(28, "No space left on device", "metrics.jsonl")

    calls.answer = fail
    answer = command_line("train")
    assert (answer.code, answer.err) == (2, "metarun: metrics.jsonl: No space left on device.\n")


def interrupt(config: object) -> float:
    raise KeyboardInterrupt


def test_an_interrupt_exits_with_130(command_line: CommandLine, calls: Calls) -> None:
    calls.answer = interrupt
    for words in ((), ("hydra.run.dir=new/run",)):
        answer = command_line("train", *words)
        assert (answer.code, answer.err) == (130, "metarun: interrupted.\n")
        assert list(Path.cwd().iterdir()) == []


def test_a_training_that_a_signal_stopped_does_not_exit_with_0(command_line: CommandLine, calls: Calls) -> None:
    """And says nothing more: the training has said how to go on."""
    for number, code in CODES.items():

        def stop(config: object, number: int = number) -> float:
            raise Stopped(number)

        calls.answer = stop
        answer = command_line("train")
        assert (answer.code, answer.err) == (code, "")


CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGUSR1: 138, signal.SIGUSR2: 140}


@pytest.mark.parametrize("number", [number for number in CODES if number != signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("command", ["train", "eval", "predict"])
def test_a_signal_before_the_first_step_or_in_an_evaluation_has_a_code_too(
    command_line: CommandLine, calls: Calls, command: str, number: signal.Signals
) -> None:
    words = {"train": [], "eval": ["checkpoint=run"], "predict": ["checkpoint=run", "support=folder"]}[command]

    def meet(config: object) -> float:
        raise_signalled(number, None)

    calls.answer = meet
    answer = command_line(command, *words)
    assert (answer.code, answer.err) == (CODES[number], f"metarun: interrupted by {number.name}.\n")
    assert list(Path.cwd().iterdir()) == []


def test_a_folder_that_was_there_stays_when_a_run_in_it_is_interrupted(command_line: CommandLine, calls: Calls) -> None:
    calls.answer = interrupt
    Path("mine").mkdir()
    assert command_line("train", "hydra.run.dir=mine").code == 130
    assert Path("mine").is_dir()
