"""From run folders to entries and differences."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_folders import write_evaluation, write_run

from metarun.commands.comparing.runs import find_runs
from metarun.commands.reporting.gather import entries_of, gaps_of, stored_evaluations
from metarun.commands.reporting.standings import standings_of


def sweep(folder: Path) -> Path:
    """Write two algorithms under two seeds, each with an evaluation of four episodes."""
    for algo, score in (("maml", 0.8), ("reptile", 0.6)):
        for seed in (0, 1):
            run = write_run(folder / f"{algo}_{seed}", (0.4, score), typed=[f"algo={algo}", f"seed={seed}"], algo=algo, seed=seed)
            write_evaluation(run / "eval" / "test", [score, score + 0.1 * seed, score, score], algo=algo, seed=seed)
    return folder


def test_an_entry_has_what_the_files_have(tmp_path: Path) -> None:
    runs = find_runs([sweep(tmp_path)])
    first, *_ = entries = entries_of(runs, stored_evaluations(runs, "test"))
    assert [(entry.name, entry.group, entry.seed) for entry in entries] == [
        ("maml seed=0", "maml", 0),
        ("maml seed=1", "maml", 1),
        ("reptile seed=0", "reptile", 0),
        ("reptile seed=1", "reptile", 1),
    ]
    assert first.scores == [0.8, 0.8, 0.8, 0.8]
    assert first.typed == ["algo=maml", "seed=0"]
    assert first.history[-1]["val/accuracy"] == 0.8
    assert first.mean == pytest.approx(0.8)


def test_a_difference_is_over_the_episodes_and_over_the_seeds(tmp_path: Path) -> None:
    """Seed by seed the difference is 0.2 on each episode, so its mean is 0.2 and both intervals are 0."""
    runs = find_runs([sweep(tmp_path)])
    entries = entries_of(runs, stored_evaluations(runs, "test"))
    (gap,) = gaps_of(entries, standings_of(entries), "reptile")
    assert (gap.first, gap.second, gap.episodes, gap.seeds) == ("maml", "reptile", 4, 2)
    assert gap.mean == pytest.approx(0.2)
    assert gap.half == pytest.approx(0.0, abs=1e-9)
    assert gap.seeds_half == pytest.approx(0.0, abs=1e-9)


def test_scores_of_other_episodes_have_no_difference(tmp_path: Path) -> None:
    for name, ways in (("a", 5), ("b", 20)):
        run = write_run(tmp_path / name, typed=[f"task.ways={ways}"], task__ways=ways)
        write_evaluation(run / "eval" / "test", [0.5, 0.6], task__ways=ways)
    runs = find_runs([tmp_path])
    entries = entries_of(runs, stored_evaluations(runs, "test"))
    assert gaps_of(entries, standings_of(entries), entries[0].group) == []


def test_of_several_evaluations_the_report_takes_that_of_the_best_checkpoint_with_the_fewest_settings(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    usual = write_evaluation(run / "eval" / "b_usual", [0.5, 0.6])
    write_evaluation(run / "eval" / "a_steps", [0.5, 0.6], settings={"inner_steps": 10})
    write_evaluation(run / "eval" / "c_older", [0.5] * 9, report={"step": 30})
    (found,) = stored_evaluations(find_runs([run]), "test")
    assert found is not None
    assert found.folder == usual
    assert stored_evaluations(find_runs([run]), "val") == [None]


def test_names_of_the_user_take_the_place_of_the_groups(tmp_path: Path) -> None:
    runs = find_runs([sweep(tmp_path)])
    entries = entries_of(runs, stored_evaluations(runs, "test"), ["A", "B", "C", "D"])
    assert [entry.group for entry in entries] == ["A", "B", "C", "D"]
    seeds = entries_of(runs, stored_evaluations(runs, "test"), ["A", "A", "B", "B"])
    assert [(entry.name, entry.group) for entry in seeds[1:3]] == [("A seed=1", "A"), ("B seed=0", "B")]


def test_a_damaged_file_of_scores_is_no_file(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    folder = write_evaluation(run / "eval" / "test", [0.5, 0.6])
    (folder / "episodes.csv").write_text("nonsense", encoding="utf-8")
    runs = find_runs([run])
    assert entries_of(runs, stored_evaluations(runs, "test"))[0].scores == []


def test_a_name_that_is_too_long_gives_way_to_the_folder(tmp_path: Path) -> None:
    for name in ("maml-seed0", "maml-seed1", "other"):
        lengths = {f"algo__a_rather_long_key_{number}": (1.5 if name == "other" else 2.5) for number in range(4)}
        seed = 1 if name == "maml-seed1" else 0
        words = [f"algo.a_rather_long_key_{number}={value}" for number, value in enumerate(lengths.values())]
        write_run(tmp_path / name, typed=[*words, f"seed={seed}"], seed=seed, **lengths)
    runs = find_runs([tmp_path])
    found = entries_of(runs, stored_evaluations(runs, "test"))
    assert [(entry.name, entry.group) for entry in found] == [
        ("maml-seed0", "maml (2 seeds)"),
        ("maml-seed1", "maml (2 seeds)"),
        ("other", "other"),
    ]


@pytest.mark.parametrize(
    ("metric", "select", "words"),
    [
        ("accuracy", None, "mean accuracy"),
        ("mse", None, "median mse"),
        ("accuracy", "nll", "mean negative log-likelihood"),
        ("mse", "mean@1", "mean mse after 1 inner step"),
    ],
)
def test_a_stopped_run_has_the_validation_of_its_log(tmp_path: Path, metric: str, select: str | None, words: str) -> None:
    write_run(tmp_path / "a", (0.5, 0.5), metric=metric, finished=False, select=select)
    runs = find_runs([tmp_path / "a"])
    (entry,) = entries = entries_of(runs, [None])
    assert (entry.status, entry.metric, entry.best["score"], entry.best["step"]) == ("stopped", metric, 0.5, 30)
    (standing,) = standings_of(entries)
    assert (standing.validation, standing.validation_metric) == (0.5, words)
    assert standing.validation_higher is (words == "mean accuracy")
