"""The setting that the others are compared with, and the differences of settings to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from run_folders import write_evaluation, write_run

from metarun.commands.comparing.runs import find_runs
from metarun.commands.comparing.scoring import scored
from metarun.commands.comparing.settings import Setting, base_of, difference, settings_of_scores


def compared(folder: Path) -> list[Setting]:
    return settings_of_scores(scored(find_runs([folder]), "test", ["episodes=3"]))


def write(folder: Path, algo: str, seed: int, scores: Sequence[float], validation: float | None = 0.5, **keys: bool) -> None:
    run = write_run(folder / f"{algo}_{seed}", [0.1, validation], algo=algo, seed=seed, typed=[f"algo={algo}", f"seed={seed}"])
    write_evaluation(run / "eval/a", scores, run=run, algo=algo, seed=seed, **keys)


def test_the_base_is_the_best_by_validation_and_not_by_the_test_scores(tmp_path: Path):
    write(tmp_path, "maml", 0, [0.9, 0.9, 0.9], 0.4)
    write(tmp_path, "protonet", 0, [0.8, 0.8, 0.8], 0.6)
    found = compared(tmp_path)
    assert [each.name for each in found] == ["maml", "protonet"], "the best test score first"
    base = base_of(found)
    assert base is not None
    assert (base.setting.name, base.chosen_by) == ("protonet", "validation")
    (tmp_path / "maml_0/report.json").unlink()
    (tmp_path / "maml_0/metrics.jsonl").unlink()
    base = base_of(compared(tmp_path))
    assert base is not None
    assert (base.setting.name, base.chosen_by) == ("maml", "test"), "a run has no validation score"


def test_validation_scores_of_other_tasks_choose_no_base(tmp_path: Path):
    """Such as those of a model of all families and a model of one family, which are scored on the same test episodes."""
    write(tmp_path, "maml", 0, [0.9, 0.9, 0.9], 0.4)
    write(tmp_path, "protonet", 0, [0.8, 0.8, 0.8], 0.6)
    config = json.loads((tmp_path / "maml_0/config.json").read_text())
    config["task"]["shots"] = 5
    (tmp_path / "maml_0/config.json").write_text(json.dumps(config))
    base = base_of(compared(tmp_path))
    assert base is not None
    assert base.chosen_by == "test"


def test_a_base_is_named_by_its_row_its_seed_or_its_path(tmp_path: Path):
    for seed in (0, 1):
        write(tmp_path, "maml", seed, [0.5, 0.6, 0.7])
    write(tmp_path, "protonet", 0, [0.8, 0.8, 0.8])
    found = compared(tmp_path)
    run = tmp_path / "maml_1"
    for typed in ("maml", "maml seed=1", str(run), f"{run}/", str(run / "checkpoints" / "best.pt")):
        base = base_of(found, typed)
        assert base is not None, typed
        assert (base.setting.name, base.chosen_by) == ("maml", "typed")
    assert base_of(found, "reptile") is None


def test_seeds_are_paired_by_their_number_and_a_single_run_with_each_seed(tmp_path: Path):
    """Seed 1 and 2 are shared: differences 0.1 and 0.3. The single run differs by 0.2, 0.1 and -0.1 from the seeds 0, 1 and 2."""
    for seed, score in ((1, 0.5), (2, 0.7), (0, 0.4)):
        write(tmp_path, "maml", seed, [score] * 3)
    for seed, score in ((2, 1.0), (1, 0.6), (3, 0.0)):
        write(tmp_path, "protonet", seed, [score] * 3)
    write(tmp_path, "nearest", 0, [0.6] * 3)
    found = {each.name: each for each in compared(tmp_path)}
    paired = difference(found["protonet"], found["maml"]).found
    assert paired is not None
    assert sorted(paired.by_seed) == pytest.approx([0.1, 0.3])
    paired = difference(found["nearest seed=0"], found["maml"]).found
    assert paired is not None
    assert sorted(paired.by_seed) == pytest.approx([-0.1, 0.1, 0.2])


def test_without_scores_by_episode_or_common_seeds_there_is_a_reason(tmp_path: Path):
    for algo, seeds in (("maml", (0, 1)), ("protonet", (2, 3))):
        for seed in seeds:
            write(tmp_path, algo, seed, [0.5, 0.6, 0.7])
    write(tmp_path, "anil", 0, [0.5, 0.6, 0.7], csv=False)
    found = {each.name: each for each in compared(tmp_path)}
    assert difference(found["maml"], found["protonet"]).reason == "'maml' and 'protonet' have no seed in common."
    assert "has no scores by episode (episodes.csv)" in str(difference(found["anil seed=0"], found["maml"]).reason)


def test_an_evaluation_of_several_runs_is_one_row_with_its_runs(tmp_path: Path):
    runs = [{"seed": seed, "mean": 0.5 + 0.1 * seed, "ci95": 0.1, "diverged": seed} for seed in (0, 1)]
    folder = write_evaluation(tmp_path / "scored", [0.5, 0.6, 0.7], run=tmp_path / "gone", csv=False, report={"runs": runs})
    for place in (1, 2):
        (folder / f"episodes_{place}.csv").write_text("episode,accuracy\n0,0.5\n1,0.6\n2,0.7\n")
    (found,) = settings_of_scores(scored(find_runs([folder]), "test"))
    assert (found.mean, len(found.samples)) == (pytest.approx(0.55), 2)
    assert [sample.scores is not None for sample in found.samples] == [True, True]
