"""Words that are no command, no flag or no override: the sentence names what the user may have meant."""

from __future__ import annotations

import pytest

from metarun.cli.main import COMMANDS
from metarun.cli.words import COMMANDS as OTHERS
from metarun.cli.words import about_command, about_flag, about_word


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("test", "there is no command 'test'. Did you mean `metarun eval checkpoint=RUN`?"),
        ("evaluate", "there is no command 'evaluate'. Did you mean `metarun eval checkpoint=RUN`?"),
        ("fit", "there is no command 'fit'. Did you mean `metarun train`?"),
        ("meta-train", "there is no command 'meta-train'. Did you mean `metarun train`?"),
        ("resume", "there is no command 'resume'. Did you mean `metarun train resume=RUN`?"),
        ("tune", "there is no command 'tune'. Did you mean `metarun train -m KEY=VALUE,VALUE`?"),
        ("infer", "there is no command 'infer'. Did you mean `metarun predict checkpoint=RUN support=EXAMPLES`?"),
        ("ls", "there is no command 'ls'. Did you mean `metarun list`?"),
        ("maml", "there is no command 'maml'. Did you mean `metarun train algo=maml`?"),
        ("smoke", "there is no command 'smoke'. Did you mean `metarun train experiment=smoke`?"),
        ("backbone", "there is no command 'backbone'. Did you mean `metarun list backbone`?"),
        ("trian", "there is no command 'trian'. Did you mean 'train'?"),
        ("--verison", "there is no option '--verison'. Did you mean '--version'?"),
        ("tensorboard", "there is no command 'tensorboard'."),
        ("banana", "there is no command 'banana'."),
        ("algo=a b", "'algo=a b' needs a command before it; write: metarun train 'algo=a b'"),
    ],
)
def test_a_word_that_is_no_command_names_the_right_one(word: str, said: str) -> None:
    assert about_command(word, COMMANDS) == said


def test_only_commands_that_exist_are_named() -> None:
    assert about_command("test", ["train"]) == "there is no command 'test'."
    named = {call.split()[0] for call in OTHERS} - {"--version"}
    assert named <= {*COMMANDS, "compare", "report"}


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--lr", "there is no flag '--lr'; a key has no dashes: write optimizer.lr=VALUE or algo.inner_lr=VALUE."),
        ("--algo", "there is no flag '--algo'; a key has no dashes: write algo=VALUE."),
        ("--seed", "there is no flag '--seed'; a key has no dashes: write seed=VALUE."),
        ("--batch-size", "there is no flag '--batch-size'; a key has no dashes: write tasks_per_step=VALUE."),
        ("-lr", "there is no flag '-lr'; a key has no dashes: write optimizer.lr=VALUE or algo.inner_lr=VALUE."),
        ("--config", "there is no flag '--config'. Did you mean '--config-dir'?"),
        ("--multirn", "there is no flag '--multirn'. Did you mean '--multirun'?"),
    ],
)
def test_a_flag_that_is_a_key_is_written_without_dashes(flag: str, said: str) -> None:
    assert about_flag(flag, ["--config-dir", "--multirun", "-r"]) == said


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("maml", "'maml' is not of the form key=value. Did you mean 'algo=maml'?"),
        ("ProtoNet", "'ProtoNet' is not of the form key=value. Did you mean 'algo=protonet'?"),
        ("task", "'task' is not of the form key=value; write task=NAME."),
        ("banana", "'banana' is not of the form key=value."),
    ],
)
def test_a_name_without_its_group_gets_the_group(word: str, said: str) -> None:
    assert about_word(word) == said
