"""`resume=auto` with Optuna's sweeper: the study is stored, and a sweep that is started again does the trials that are missing."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from metarun.errors import UserError, counted, first_line, printable
from metarun.files.run_folder import AUTO

STUDY, NAME = "study.db", "metarun"
"""The file in the sweep's folder that holds the study where the user names no storage, and the name of the study in it."""


def take_up(config: DictConfig) -> None:
    """Let Optuna's sweeper go on with the study of an earlier start, in place; other sweepers and other sweeps stay as they are.

    config: of the sweep. Raises UserError where the storage cannot be read.
    """
    sweeper = config.hydra.sweeper
    if config.get("resume") != AUTO or not str(OmegaConf.select(sweeper, "_target_")).endswith("OptunaSweeper"):
        return
    with read_write(config.hydra), open_dict(config.hydra):
        if sweeper.storage is None:
            folder = Path(config.hydra.sweep.dir).absolute()
            folder.mkdir(parents=True, exist_ok=True)
            sweeper.storage = f"sqlite:///{folder / STUDY}"
        if sweeper.study_name is None:
            sweeper.study_name = NAME
        sweeper.n_trials = missing_trials(str(sweeper.storage), str(sweeper.study_name), int(sweeper.n_trials))


def missing_trials(storage: str, name: str, trials: int) -> int:
    """Return how many of the trials a study still lacks, and queue its stopped trials again, with their values.

    A trial whose job failed has an error of infinity, so it counts as done. Raises UserError where the storage cannot be read, and for a
    study that maximises.
    """
    import optuna

    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        return trials
    except Exception as error:  # each database has errors of its own
        raise UserError(f"hydra.sweeper.storage={printable(storage)} cannot be read: {printable(first_line(error))}.") from error
    if study.direction != optuna.study.StudyDirection.MINIMIZE:
        raise UserError(f"the study {printable(name)} maximises, and a job returns an error; give another hydra.sweeper.study_name.")
    again = queue_again(study)
    done = sum(trial.state == optuna.trial.TrialState.COMPLETE for trial in study.trials)
    stopped = f"; {counted(again, 'stopped trial')} of them {'goes' if again == 1 else 'go'} on" if again else ""
    left = max(trials - done, 0)
    print(f"metarun: the study has {done} of {trials} trials, so {counted(left, 'trial')} will run{stopped}.", file=sys.stderr, flush=True)
    return left


def queue_again(study: Any) -> int:
    """Queue each trial without a result again, with the values that it has; return how many there are.

    The stored trial itself stays, as a failed one, since Optuna ends a trial once.
    """
    from optuna.exceptions import ExperimentalWarning
    from optuna.trial import TrialState

    done = [trial.params for trial in study.trials if trial.state == TrialState.COMPLETE]
    queued: list[Any] = [trial.system_attrs.get("fixed_params") for trial in study.trials if trial.state == TrialState.WAITING]
    count = len(queued)
    for trial in study.trials:
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
        unfinished = trial.state in (TrialState.RUNNING, TrialState.FAIL)
        if unfinished and trial.params and trial.params not in done and trial.params not in queued:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                study.enqueue_trial(trial.params)
            queued.append(trial.params)
            count += 1
    return count
