from __future__ import annotations

import errno
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from metarun.cli.composing import eval_config, mistake_of, options, plain, train_config, typed_keys
from metarun.errors import UserError

CHOSEN = {"algo": "maml", "hydra/job_logging": "default", "hydra": None}


def test_the_options_are_those_of_metaruns_own_groups():
    assert options(CHOSEN) == {"algo": "maml"}


def test_a_config_is_resolved_and_a_missing_value_is_one_sentence():
    assert plain(OmegaConf.create({"a": 1, "b": "${a}"}), CHOSEN) == {"a": 1, "b": 1, "options": {"algo": "maml"}}
    with pytest.raises(UserError, match="'a' has no value"):
        plain(OmegaConf.create({"a": "???"}), CHOSEN)


def test_typed_keys_are_the_overrides_with_their_values():
    assert typed_keys(["algo=maml", "++task.shots=5"]) == {"algo": "maml", "task.shots": 5}


def test_a_training_learns_what_was_typed_without_what_all_jobs_of_a_sweep_have_alike():
    cfg, typed = OmegaConf.create({"steps": 9}), ["algo=maml", "steps=9", "+trust=[a]", "logger=wandb", "logger.wandb.project=x"]
    assert train_config(cfg, CHOSEN, typed)["typed"] == {"algo": "maml", "steps": 9}
    assert train_config(cfg, CHOSEN, typed, fixed=["steps", "trust"])["typed"] == {"algo": "maml"}


def test_a_resumed_run_may_take_several_loggers():
    """Hydra names no option of a group of which several are chosen."""
    cfg = OmegaConf.create({"resume": "run", "logger": {"a": 1, "b": 2}})
    config = train_config(cfg, CHOSEN, ["resume=run", "logger=[a,b]"])
    assert (config["overrides"], config["groups"]) == ({"logger": ["a", "b"]}, {"logger": {"a": 1, "b": 2}})


def test_a_resumed_run_gets_the_overrides_alone():
    cfg = OmegaConf.create({"resume": "run", "algo": {"inner_lr": 0.1}, "steps": 9})
    assert train_config(cfg, CHOSEN, ["resume=run", "algo=maml", "steps=9"]) == {
        "resume": "run",
        "overrides": {"algo": "maml", "steps": 9},
        "groups": {"algo": {"inner_lr": 0.1}},
    }


def test_an_evaluation_has_its_groups_without_an_optimizer():
    config = eval_config(OmegaConf.create({"optimizer": {}, "seed": 3}), CHOSEN, ["task.shots=5"])
    assert config == {
        "seed": 3,
        "algo": {},
        "task": {},
        "backbone": {},
        "typed": ["task.shots"],
        "options": {"algo": "maml", "task": None, "backbone": None, "device": None},
    }


def test_a_full_disk_is_no_bug():
    assert str(mistake_of(OSError(errno.ENOSPC, "No space left", "file"), Path("run"))) == "file: No space left."
    assert mistake_of(ValueError(), Path("run")) is None
