"""The option of a group is a name."""

from __future__ import annotations

import pytest

from metarun.cli.groups import check_options
from metarun.errors import UserError

WRONG = (
    *("algo={a:1}", "algo={}", "algo=[maml,protonet]", "algo=nan", "+algo=1.5", "algo/update=null", "task=[]", "task=''"),
    *("backbone=5", "device=true", "optimizer=null", "logger=", "experiment=[smoke]"),
)


@pytest.mark.parametrize("word", WRONG)
def test_a_group_takes_the_name_of_an_option_and_nothing_else(word: str) -> None:
    group = word.lstrip("+").partition("=")[0]
    with pytest.raises(UserError, match=rf"names no option of {group}; give one name, such as {group}=\w+"):
        check_options(["-m", word])


@pytest.mark.parametrize("word", ["logger=[]", "logger=[5]", "logger=[tensorboard,'']", "logger={a:1}", "logger=3"])
def test_a_list_of_loggers_is_a_list_of_names(word: str) -> None:
    with pytest.raises(UserError, match="names no option of logger"):
        check_options([word])


def test_several_loggers_pass() -> None:
    check_options(["logger=[tensorboard,wandb]", "logger=[jsonl]", "logger=[tensorboard,wandb],jsonl"])


def test_names_sweeps_and_single_keys_pass() -> None:
    words = ["algo=maml", "algo=maml,anil", "algo=choice(maml,anil)", "task='glyphs'", "algo/update=sgd", "algo.inner_lr=1", "~algo"]
    check_options(["--cfg", "job", *words])
    check_options(["algo=(("])  # Hydra says what is wrong with it
