"""Where an evaluation writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_folders import config_of, write_run

from metarun.cli.evaluation_folders import name_parts, wanted_folder
from metarun.cli.folders import RunFolders


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([], "glyphs-5w1s-test"),
        (["split=val", "episodes=1000", "device.threads=1", "save=x.csv", "trust=[mine]", "by_step=last"], "glyphs-5w1s-val-episodes-1000"),
        (["task.shots=5", "norm=batch"], "glyphs-5w5s-test-norm-batch"),
        (["task=omniglot", "seed=1"], "omniglot-5w1s-test-seed-1"),
        (["best=5"], "glyphs-5w1s-test-best-5"),
    ],
)
def test_the_name_has_the_task_its_sizes_the_split_and_the_other_typed_keys(tmp_path: Path, words: list[str], name: str):
    run = write_run(tmp_path / "run")
    for checkpoint in (str(run), str(run / "checkpoints"), str(run / "checkpoints" / "best.pt"), [str(run)]):
        assert wanted_folder(checkpoint, [f"checkpoint={run}", *words]) == run / "eval" / name


def test_another_checkpoint_of_the_run_is_named(tmp_path: Path):
    run = write_run(tmp_path / "run")
    (run / "checkpoints" / "last.pt").write_bytes(b"")
    assert wanted_folder(str(run / "checkpoints/last.pt"), []) == run / "eval" / "glyphs-5w1s-test-last"


def test_a_regression_has_shots_alone():
    config = config_of(task="sinusoid")
    config["task"] = {"shots": 10}
    assert name_parts(config, {}) == ["sinusoid", "10s", "test"]
    assert name_parts({}, {}) == ["task", "test"]


def test_several_runs_and_a_checkpoint_outside_of_a_run_have_no_folder_of_a_run(tmp_path: Path):
    run = write_run(tmp_path / "run")
    (tmp_path / "loose.pt").write_bytes(b"")
    for checkpoint in ([str(run), str(run)], [], None, str(tmp_path / "loose.pt"), str(tmp_path / "gone"), 5):
        assert wanted_folder(checkpoint, []) is None


def test_each_evaluation_has_a_folder_of_its_own_also_of_equal_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "a run")
    folders = [RunFolders() for _ in range(3)]
    made = [each.make_evaluation(str(run), ["episodes=5"], "outputs/eval/now") for each in folders]
    assert made == [str(run / "eval" / f"glyphs-5w1s-test-episodes-5{end}") for end in ("", "-2", "-3")]
    for each in reversed(folders):
        each.discard()
    assert not (run / "eval").exists(), "nothing was written there"
    assert RunFolders().make_evaluation([str(run), str(run)], [], "outputs/eval/now") == "outputs/eval/now"


@pytest.mark.parametrize("planted", ["a file", "a link"])
def test_a_run_that_cannot_take_the_evaluation_is_named_and_the_evaluation_goes_to_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], planted: str
):
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    if planted == "a file":
        (run / "eval").write_text("mine")
    else:
        (run / "eval").symlink_to(tmp_path / "elsewhere")
    assert RunFolders().make_evaluation(str(run), [], "outputs/eval/now") == "outputs/eval/now"
    assert capsys.readouterr().err.startswith(f"metarun: {run} cannot take the evaluation (")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_strange_letters_of_a_config_do_not_leave_the_run(tmp_path: Path):
    run = write_run(tmp_path / "run", task="../../x y\x1b")
    made = Path(RunFolders().make_evaluation(str(run), ["task.shots=../9"], "unused"))
    assert made.parent == run / "eval"
    assert made.name == "x-y-5w-test"
