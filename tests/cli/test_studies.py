"""Studies of Optuna that are stopped and taken up again."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from metarun.cli.studies import missing_trials, take_up
from metarun.errors import UserError

optuna = pytest.importorskip("optuna", reason="the extra `sweep` is not installed; the extra `dev` has what this test needs")


@pytest.fixture
def storage(tmp_path: Path) -> str:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return f"sqlite:///{tmp_path}/study.db"


def test_a_new_study_does_all_its_trials(storage: str) -> None:
    assert missing_trials(storage, "mine", 20) == 20


def test_a_study_that_was_stopped_lacks_the_stopped_trial_which_keeps_its_values(storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    study = optuna.create_study(study_name="mine", storage=storage)
    for value in (0.5, math.inf):  # the second job failed
        trial = study.ask()
        trial.suggest_uniform("lr", 0, 1)
        study.tell(trial, value)
    stopped = study.ask().suggest_uniform("lr", 0, 1)
    assert missing_trials(storage, "mine", 5) == 3
    assert "the study has 2 of 5 trials, so 3 trials will run; 1 stopped trial of them goes on" in capsys.readouterr().err
    again = optuna.load_study(study_name="mine", storage=storage)
    assert again.ask().suggest_uniform("lr", 0, 1) == stopped
    assert missing_trials(storage, "mine", 5) == 3, "a second stop queues the trial once more, and counts it once"
    assert again.ask().suggest_uniform("lr", 0, 1) == stopped
    assert missing_trials(storage, "mine", 2) == 0


def test_a_study_that_maximises_and_a_storage_that_is_none_are_refused(storage: str) -> None:
    optuna.create_study(study_name="mine", storage=storage, direction="maximize")
    with pytest.raises(UserError, match="the study mine maximises"):
        missing_trials(storage, "mine", 5)
    with pytest.raises(UserError, match=r"hydra.sweeper.storage=nothing cannot be read"):
        missing_trials("nothing", "mine", 5)


def test_without_a_storage_the_study_lies_in_the_folder_of_the_sweep(tmp_path: Path) -> None:
    sweeper = {"_target_": "hydra_plugins.x.OptunaSweeper", "storage": None, "study_name": None, "n_trials": 4}
    config = OmegaConf.create({"resume": "auto", "hydra": {"sweeper": sweeper, "sweep": {"dir": str(tmp_path / "sweep")}}})
    take_up(config)
    assert config.hydra.sweeper.storage == f"sqlite:///{tmp_path}/sweep/study.db"
    assert (config.hydra.sweeper.study_name, config.hydra.sweeper.n_trials) == ("metarun", 4)
    config.resume = None
    config.hydra.sweeper.storage = None
    take_up(config)
    assert config.hydra.sweeper.storage is None
