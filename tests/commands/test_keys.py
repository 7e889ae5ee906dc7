"""The keys of the two commands: their ranges, and the overrides of an evaluation that would have no effect."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from metarun.commands.keys import check_evaluation_keys, check_train, check_typed, claim_of
from metarun.errors import UserError


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": "tset"}, "split='tset' should be one of train, val, test. Did you mean 'test'?"),
        ({"by_step": "lats"}, "by_step='lats' should be one of all, thin, last. Did you mean 'last'?"),
        ({"episodes": True}, "episodes=true should be a whole number from 1 to 10,000,000"),
        ({"episodes": 10**12}, "episodes=1000000000000 should be"),
        ({"seed": -1}, "seed=-1 should be a whole number from 0 to"),
        ({"ensemble": "yes"}, "ensemble='yes' should be true or false"),
        ({"norm": 5}, "norm=5 should be one of batch"),
        ({"checkpoint": None}, "checkpoint=null should be text"),
        ({"checkpoint": []}, "checkpoint=[] should be text"),
        ({"save": ["a"]}, "save=['a'] should be text"),
        ({"inner_steps": 1e20}, "inner_steps=1e+20 should be a whole number from 0 to 10,000 or null"),
        ({"best": 0}, "best=0 should be a whole number from 1"),
        ({"trust": 5}, "trust=5 should be a list"),
    ],
)
def test_a_bad_key_of_an_evaluation_is_a_sentence(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        check_evaluation_keys(changes)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reproduce": "abc"}, "reproduce='abc' should be a mapping"),
        ({"reproduce": {"published": "many"}}, "reproduce.published='many' should be a number from 0"),
        ({"reproduce": {"sauce": 1}}, "reproduce.sauce=1 is no key; the keys are eval, metric"),
        ({"reproduce": {"differences": 5}}, "reproduce.differences=5 should be"),
        ({"trust": "mine"}, "trust='mine' should be a list"),
        ({"init_from": True}, "init_from=true should be text"),
        ({"overlap": None}, "overlap=null should be one of refuse, allow"),
        ({"resume": "run", "overrides": {"trust": 5}}, "trust=5 should be a list"),
    ],
)
def test_a_bad_key_of_a_training_is_a_sentence(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        check_train(changes)
    assert words in str(caught.value)


def test_the_differences_of_a_claim_are_a_list_or_a_mapping_from_which_null_removes_one() -> None:
    assert claim_of({"differences": ["a.", "b."]}).differences == ("a.", "b.")
    assert claim_of({"differences": {"steps": "fewer.", "lr": None}}).differences == ("steps: fewer.",)
    assert claim_of({}).differences == ()


@pytest.mark.parametrize("key", ["optimizer.lr", "optimizer", "logger.tensorboard", "steps", "algo.recipe.norm"])
def test_an_override_of_an_evaluation_that_would_have_no_effect_is_refused(key: str) -> None:
    with pytest.raises(UserError, match=key):
        check_typed([key])


def test_the_overrides_that_an_evaluation_reads_pass() -> None:
    check_typed(["seed", "task.shots", "task", "algo/update", "device.threads", "algo.test_inner_steps", "by_step"])


def test_the_keys_are_known_without_torch() -> None:
    code = "import sys, metarun.commands.keys; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
