"""Run folders: each job has its own, also where jobs start in the same second, and a job that is refused at once leaves none.

Resolving a config only names a folder. `NumberedFolder`, a Hydra callback, makes the folder when the run starts.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from metarun.cli.evaluation_folders import wanted_folder
from metarun.cli.stops import SweepWatch
from metarun.errors import UserError, printable
from metarun.files.lock import FolderLock
from metarun.files.paths import quoted
from metarun.files.run_folder import AUTO, CHECKPOINTS, check_places, refuse_run
from metarun.files.writing import check_place, remove_leftovers
from metarun.processes.ranks import here

LONGEST = 100
"""The most letters of the name of a job's folder. Names of this length may stand for several jobs that differ only in the rest."""
HYDRAS_OWN = {".hydra", "metarun.log", "multirun.yaml"}
"""The files that Hydra writes into a run folder before the job starts."""


class SweepFolder(NamedTuple):
    """The folder of the sweep that a command runs, and the number of failed jobs that an earlier sweep noted there."""

    path: Path
    earlier: int


class RunFolders:
    """The folders that one command made. The command owns this object and discards the folders where the job is refused."""

    def __init__(self) -> None:
        self.sweep: SweepFolder | None = None
        self.watch: SweepWatch | None = None
        self._parents: dict[Path, list[Path]] = {}  # folder -> the parents that were made for it, innermost first

    @property
    def last(self) -> Path:
        """The folder that was made last; raises StopIteration where there is none."""
        return next(reversed(self._parents))

    def make(self, name: str, key: str = "hydra.run.dir") -> str:
        """Make the folder `name`, or `name-2`, `name-3`, … where another job has it, and return its path.

        key: sets the folder in Hydra's config. Raises UserError where the folder cannot be made.
        """
        wanted = Path(name)
        parents = _missing_parents(wanted)
        try:
            wanted.parent.mkdir(parents=True, exist_ok=True)
            for number in itertools.count(1):
                folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
                with contextlib.suppress(FileExistsError):  # mkdir is atomic: of two jobs one gets the folder
                    folder.mkdir()
                    break
        except OSError as error:
            raise UserError(f"The run folder {name} cannot be made ({error.strerror}); choose another with {key}=FOLDER.") from error
        self._parents[folder.absolute()] = parents
        return str(folder)

    def follow(self, name: str) -> None:
        """Note the folder of the first process, in a process that writes nothing."""
        self._parents[Path(name).absolute()] = []

    def make_evaluation(self, checkpoint: Any, words: Sequence[str], elsewhere: str) -> str:
        """Make the folder of an evaluation inside of the run that it scores, and return its path.

        An evaluation of several runs, or of a checkpoint outside of a run, gets the folder `elsewhere`. So does one of a run that cannot be
        written, which is printed. checkpoint, words: as of `wanted_folder`. Raises UserError as `make` does.
        """
        wanted = wanted_folder(checkpoint, words)
        if wanted is None:
            return self.make(elsewhere)
        try:
            check_place(wanted.parent)
            return self.make(str(wanted.with_name(tidy(wanted.name))))
        except UserError as error:
            made = self.make(elsewhere)
            reason = str(error.__cause__.strerror) if isinstance(error.__cause__, OSError) else str(error)
            print(f"metarun: {wanted.parents[1]} cannot take the evaluation ({printable(reason)}), so {made} does.", file=sys.stderr)
            return made

    def note(self, folder: Path) -> None:
        """Note a folder that Hydra is about to make, so that `discard` removes it; one that exists already is not noted."""
        if not folder.exists():
            self._parents[folder.absolute()] = _missing_parents(folder)

    def discard(self) -> None:
        """Remove the folders that hold only Hydra's own files, and the parents that were made for them; only the first process does."""
        if not here().first:
            return
        for folder, parents in self._parents.items():
            if folder.is_dir() and {path.name for path in folder.iterdir()} <= HYDRAS_OWN:
                shutil.rmtree(folder, ignore_errors=True)
                for parent in parents:
                    with contextlib.suppress(OSError):  # a parent that another job uses by now is not empty
                        parent.rmdir()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Let the callbacks that Hydra creates meanwhile make their folders here."""
        token = _IN_USE.set(self)
        try:
            yield
        finally:
            _IN_USE.reset(token)
            if self.watch is not None:
                self.watch.end()


_IN_USE: ContextVar[RunFolders] = ContextVar("the folders of the command that runs")
"""Hydra creates its callbacks itself, from the config, and passes them no object of the command."""


def folders_in_use() -> RunFolders:
    """Return the folders of the command that runs; a new object where no command runs."""
    return _IN_USE.get(RunFolders())


class Refusal(BaseException):
    """Carries a UserError past Hydra to the command.

    Hydra turns an `Exception` of a callback into a warning, and prints lines of its own about one of a job.
    """

    def __init__(self, error: UserError) -> None:
        super().__init__(str(error))
        self.error = error


class Crash(BaseException):
    """Carries an exception that is no mistake of the user past Hydra, which would print lines of its own about it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class NumberedFolder(Callback):
    """Makes the folder of a run or of a sweep, numbered where the name is taken, and writes its path into Hydra's config.

    A folder that the user typed (`hydra.run.dir=…`) stays as typed. Of several processes, the first one does this. The others take its
    path, and keep Hydra from writing. Raises Refusal where the folder cannot be made.
    """

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Make the run's folder."""
        self._make(config, "run")

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Make the sweep's folder. Each job composes its config anew, from the overrides: so the path becomes one of them."""
        self._make(config, "sweep")

    def _make(self, config: DictConfig, kind: str) -> None:
        overrides = config.hydra.overrides.hydra
        key = f"hydra.{kind}.dir"
        typed = any(override.lstrip("+").startswith(f"{key}=") for override in overrides)
        try:
            if config.get("resume") == AUTO:
                check_fixed(config, kind)
                typed = True
            path = here().tell(lambda: _typed(config, kind) if typed else _made(config, kind, key))
        except UserError as error:
            raise Refusal(error) from error
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra[kind].dir = path
            if kind == "sweep" and not typed:
                overrides.append(f"{key}={quoted(path)}")
            if not here().first:
                folders_in_use().follow(path)
                config.hydra.output_subdir = config.hydra.job_logging.root = None


def _typed(config: DictConfig, kind: str) -> str:
    """Check and note the folder that the user typed, and return its path."""
    folder = config.hydra[kind].dir
    check_typed(Path(folder), kind, resumed=config.get("resume") is not None)
    folders_in_use().note(Path(folder))
    return str(folder)


def _made(config: DictConfig, kind: str, key: str) -> str:
    """Make the folder of a run, of a sweep or of an evaluation, and return its path."""
    folders, wanted = folders_in_use(), config.hydra[kind].dir
    if kind == "run" and OmegaConf.select(config, "hydra.job.config_name") == "eval" and not OmegaConf.is_missing(config, "checkpoint"):
        return folders.make_evaluation(config.checkpoint, config.hydra.overrides.task, wanted)
    return folders.make(wanted, key)


def _missing_parents(folder: Path) -> list[Path]:
    return [parent for parent in folder.absolute().parents if not parent.exists()]


def check_fixed(config: DictConfig, kind: str) -> None:
    """Raise UserError where `resume=auto` could find no run, since the folder has another name at each start. kind: "run" or "sweep"."""
    named: Any = OmegaConf.to_container(config.hydra[kind], resolve=False)
    if "${now:" in str(named["dir"]):
        raise UserError(
            f"resume=auto goes on in a folder that has the same name at each start, and this one has the time in its name; "
            f"give hydra.{kind}.dir=FOLDER."
        )


def check_typed(folder: Path, kind: str, *, resumed: bool) -> None:
    """Raise UserError where Hydra must not write into a folder that the user typed. kind: "run" or "sweep".

    The folder of a run must not hold planted links or pipes, another run, or the run of a process that is alive.
    """
    if not folder.is_dir():
        return
    check_places(folder, sweep=kind == "sweep")
    if kind == "run":
        with FolderLock(folder):
            if not resumed:
                refuse_run(folder)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder; remove the files that a process left there when it ended in the middle of writing.

    Of several processes, the first one alone writes, so that it alone holds the lock.
    """
    if not here().first:
        yield
        return
    with FolderLock(folder):
        remove_leftovers(folder)
        remove_leftovers(folder / CHECKPOINTS)
        yield


def job_folder(resume: Any, sweep: Any, number: Any, name: Any) -> str:
    """Return the name of a job's folder within a sweep, such as 3_algo-maml_seed-1.

    With `resume=auto`, the job takes the folder that an earlier start of the sweep made for the same values, whatever its number was.
    """
    wanted = tidy(f"{number}_{name}")
    rest = wanted.removeprefix(str(number))
    if resume != AUTO or not rest or len(wanted) >= LONGEST or not Path(str(sweep)).is_dir() or (Path(str(sweep)) / wanted).exists():
        return wanted
    same = [each.name for each in Path(str(sweep)).iterdir() if re.fullmatch(rf"\d+{re.escape(rest)}", each.name)]
    return min(same, key=lambda name: int(name.partition("_")[0]), default=wanted)


def tidy(name: str) -> str:
    """Return a job's name within a sweep, such as 3_algo-maml_seed-1, in letters that need no quotes in a shell or in an override."""
    return re.sub(r"[^\w.]+", "-", name.replace("+", ""))[:LONGEST].strip("-_.")
