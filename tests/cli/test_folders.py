"""Run folders: who makes them, how they are numbered, and which of them a refused command removes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from omegaconf import DictConfig, OmegaConf

from metarun.cli.folders import NumberedFolder, Refusal, RunFolders, held, tidy
from metarun.errors import UserError
from metarun.files.writing import PREFIX, SUFFIX
from metarun.processes.ranks import OneProcess, using

if TYPE_CHECKING:
    from command_line import Calls, CommandLine

pytest_plugins = ("command_line",)


def hydra_config(*overrides: str, folder: str = "outputs/now") -> DictConfig:
    """Return the part of Hydra's config that the callback reads, read-only as Hydra passes it."""
    node = {"run": {"dir": folder}, "sweep": {"dir": folder}, "overrides": {"hydra": list(overrides)}, "job_logging": {}}
    config = OmegaConf.create({"hydra": node})
    OmegaConf.set_readonly(config.hydra, True)
    OmegaConf.set_struct(config, True)
    return config


def test_a_taken_name_gets_a_number(tmp_path: Path) -> None:
    folders = RunFolders()
    assert [folders.make(f"{tmp_path}/a/run") for _ in range(3)] == [f"{tmp_path}/a/run", f"{tmp_path}/a/run-2", f"{tmp_path}/a/run-3"]
    assert folders.last == tmp_path / "a/run-3"


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/run cannot be made .* choose another with hydra\.run\.dir=FOLDER"):
        RunFolders().make(f"{tmp_path}/file/run")


def test_discarding_removes_the_folder_and_the_parents_that_were_made_for_it(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    folders = RunFolders()
    folder = Path(folders.make(f"{tmp_path}/old/new/run"))
    (folder / ".hydra").mkdir()
    (folder / "metarun.log").touch()
    folders.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert list((tmp_path / "old").iterdir()) == []


def test_discarding_keeps_a_folder_with_results_and_the_folders_of_other_commands(tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    first, second = RunFolders(), RunFolders()
    kept = Path(first.make(f"{tmp_path}/outputs/run"))
    (kept / "metrics.jsonl").touch()
    other = Path(second.make(f"{tmp_path}/outputs/run"))
    first.discard()
    assert kept.is_dir()
    assert other.is_dir()


def test_the_callback_makes_the_folder_and_writes_its_path_into_hydras_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("outputs/now").mkdir(parents=True)
    run, sweep, folders = hydra_config(), hydra_config(), RunFolders()
    with folders.in_use():
        NumberedFolder().on_run_start(run)
        NumberedFolder().on_multirun_start(sweep)
    assert (run.hydra.run.dir, sweep.hydra.sweep.dir) == ("outputs/now-2", "outputs/now-3")
    assert list(run.hydra.overrides.hydra) == []
    assert list(sweep.hydra.overrides.hydra) == ["hydra.sweep.dir='outputs/now-3'"], "what each job of the sweep composes from"
    assert folders.last == tmp_path / "outputs/now-3"


def test_the_callback_leaves_a_typed_folder_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = hydra_config("hydra.run.dir=outputs/now")
    NumberedFolder().on_run_start(config)
    assert config.hydra.run.dir == "outputs/now"
    assert list(tmp_path.iterdir()) == []


def test_the_callback_gets_its_refusal_past_hydra(tmp_path: Path) -> None:
    """Hydra turns an Exception of a callback into a warning, so that the run would go on in a folder that is not its own."""
    (tmp_path / "file").touch()
    with pytest.raises(Refusal) as caught:
        NumberedFolder().on_run_start(hydra_config(folder=f"{tmp_path}/file/run"))
    assert not isinstance(caught.value, Exception)
    assert isinstance(caught.value.error, UserError)
    with pytest.raises(Refusal, match=r"choose another with hydra\.sweep\.dir=FOLDER"):
        NumberedFolder().on_multirun_start(hydra_config(folder=f"{tmp_path}/file/run"))


def test_jobs_that_start_in_the_same_second_get_different_folders(command_line: CommandLine, calls: Calls) -> None:
    for _ in range(4):
        assert command_line("train").code == 0
    assert len({folder for _, folder in calls.train}) == 4


@pytest.mark.parametrize(("flags", "places"), [((), ["taken-2"]), (("-m", "seed=0,1"), ["taken-2/0_seed-0", "taken-2/1_seed-1"])])
def test_a_run_and_every_job_of_a_sweep_go_into_the_numbered_folder(
    command_line: CommandLine, calls: Calls, flags: tuple[str, ...], places: list[str]
) -> None:
    Path("taken").mkdir()
    Path("conf/experiment").mkdir(parents=True)
    kind = "sweep" if flags else "run"
    Path("conf/experiment/here.yaml").write_text(f"# @package _global_\nhydra: {{{kind}: {{dir: taken}}}}\n")
    assert command_line("train", "--config-dir", "conf", "experiment=here", *flags).code == 0
    assert [folder.relative_to(Path.cwd()).as_posix() for _, folder in calls.train] == places
    assert list(Path("taken").iterdir()) == []


@pytest.mark.parametrize("flags", [("--cfg", "job"), ("--cfg", "all", "--resolve"), ("--info", "searchpath"), ("--help",)])
def test_asking_for_information_makes_no_folder(command_line: CommandLine, calls: Calls, flags: tuple[str, ...]) -> None:
    answer = command_line("train", *flags)
    assert answer.code == 0
    assert answer.out
    assert not calls.train
    assert list(Path.cwd().iterdir()) == []


def test_a_jobs_name_needs_no_quotes() -> None:
    assert tidy("3_++task.root-/my photos,[1,2]_lr-0.1") == "3_task.root-my-photos-1-2-_lr-0.1"
    assert len(tidy("x" * 300)) == 100


def test_a_held_run_folder_has_no_leftovers_of_a_killed_process_and_keeps_its_files(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for folder in (tmp_path, tmp_path / "checkpoints"):
        (folder / f"{PREFIX}cut{SUFFIX}").touch()
        (folder / "kept").touch()
    with held(tmp_path):
        assert [path.name for path in sorted(tmp_path.rglob("*")) if path.is_file() and PREFIX in path.name and SUFFIX in path.name] == []
    assert (tmp_path / "kept").exists()
    assert (tmp_path / "checkpoints/kept").exists()


class Second(OneProcess):
    """The second of two processes, which the first one tells its folder."""

    rank, size, first = 1, 2, False

    def tell(self, compute: Callable[[], Any]) -> Any:
        return "outputs/now-2"


def test_a_later_process_takes_the_folder_of_the_first_one_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = RunFolders()
    for config in (hydra_config(), hydra_config("hydra.run.dir=outputs/now")):
        OmegaConf.set_struct(config, False)
        with using(Second()), folders.in_use():
            NumberedFolder().on_run_start(config)
        assert config.hydra.run.dir == "outputs/now-2"
        assert config.hydra.output_subdir is None
        assert config.hydra.job_logging.root is None
    assert folders.last == tmp_path / "outputs" / "now-2"
    assert not list(tmp_path.iterdir())


def test_a_later_process_neither_locks_nor_discards_the_folder_of_the_first_one(tmp_path: Path) -> None:
    folders, run = RunFolders(), tmp_path / "run"
    folders.make(str(run))
    with held(run), using(Second()):
        with held(run):
            pass
        folders.discard()
        assert run.is_dir()
