"""The sections about the runs: configs, protocol, warnings, versions, commands."""

from __future__ import annotations

import shlex
from pathlib import Path

from report_entries import entry, regression

from metarun.commands.reporting.about import commands_section, configs_section, protocol_section, versions_section, warnings_of
from metarun.commands.reporting.page import Command, Listing, Section, Table


def rows(section: Section | None) -> list[list[str]]:
    assert section is not None
    return [[cell.text for cell in row] for block in section.blocks if isinstance(block, Table) for row in block.rows]


def test_the_differing_keys_are_shown_the_shorter_side_across() -> None:
    one, other = {"algo": "maml", "algo.inner_lr": "0.1", "steps": ""}, {"algo": "maml", "algo.inner_lr": "0.4", "steps": "60"}
    found = rows(configs_section([entry(differing=one), entry("b", differing=other)]))
    assert found == [["`algo`", "maml", "maml"], ["`algo.inner_lr`", "0.1", "0.4"], ["`steps`", "–", "60"]]
    turned = rows(configs_section([entry(differing={"seed": "0"}), entry("b", differing={"seed": "1"})]))
    assert turned == [["`maml`", "0"], ["`b`", "1"]]
    assert configs_section([entry(differing=one)]) is None
    assert "equal values" in str(configs_section([entry(), entry("b")]))


def test_the_published_score_stands_beside_ours() -> None:
    reproduction = {"metric": "accuracy", "measured": 0.98, "measured_ci95": 0.002, "published": 0.988, "tolerance": 0.015}
    found = {**reproduction, "reproduced": True, "source": "Snell et al. 2017", "recalled": True, "changed": ["steps=20 instead of 7200"]}
    section = protocol_section([entry(reproduction=found)], {})
    assert rows(section)[0][1:] == ["98.00 % ± 0.20", "98.80 %", "1.50 %", "reproduced", "Snell et al. 2017 (as recalled, not read again)"]
    assert "steps=20 instead of 7200" in str(section)


def test_the_differences_from_the_paper_are_listed() -> None:
    section = protocol_section([entry()], {"omniglot": {"source": "A 2017", "differences": {"steps": "4,000, where the paper has more"}}})
    assert section is not None
    assert any(isinstance(block, Listing) and block.items == ["`steps`: 4,000, where the paper has more"] for block in section.blocks)
    assert protocol_section([entry()], {"plain": {}}) is None


def test_diverged_tasks_are_named_by_their_numbers() -> None:
    (said,) = warnings_of(regression(diverged=2, scores=[0.1, None, 9.0, 0.2]))
    assert said == "`maml`: 2 of 4 tasks diverged; the worst are the episodes 1, 2."


def test_leaks_and_unfinished_runs_are_warnings() -> None:
    found = [*warnings_of(entry(status="stopped", overlap={"count": 3, "kind": "classes"}, pretraining={"contained": ["cub"]}))]
    assert [
        part in sentence for part, sentence in zip(("stopped", "3 scored classes", "contains the data set cub"), found, strict=True)
    ] == [True] * 3
    assert list(warnings_of(entry())) == []
    assert ["training split" in sentence for sentence in warnings_of(entry(split="train"))] == [True]
    (transfer,) = warnings_of(entry(task="omniglot", trained_on="glyphs"))
    assert "trained on `glyphs`" in transfer


def test_commands_can_be_pasted_into_a_shell() -> None:
    odd = entry(
        folder=Path("my runs/a"),
        typed=["task.root=/my data/x y", "trust=[mine]"],
        checkpoint="/my runs/a/best.pt",
        settings={"task.shots": "5"},
    )
    section = commands_section([odd], "metarun report 'my runs'", ["mine"])
    assert section is not None
    texts = [block.text for block in section.blocks if isinstance(block, Command)]
    assert shlex.split(texts[0]) == ["metarun", "train", "task.root=/my data/x y", "trust=[mine]"]
    assert shlex.split(texts[1])[2:] == [
        *("checkpoint=/my runs/a/best.pt", "split=test", "episodes=4", "seed=0", "task.shots=5", "trust=[mine]")
    ]
    assert texts[2] == "metarun report 'my runs'"


def test_a_stopped_run_has_the_command_that_goes_on_with_it(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    stopped = entry(folder=tmp_path, status="stopped", typed=["algo=maml"], config={"algo": {"_target_": "mine.Algo"}})
    for name, words in (("none.txt", ["algo=maml"]), ("last.pt", [f"resume={tmp_path}", "trust=[mine]"])):
        (tmp_path / "checkpoints" / name).touch()
        section = commands_section([stopped], "metarun report")
        assert section is not None
        first = next(block for block in section.blocks if isinstance(block, Command))
        assert shlex.split(first.text) == ["metarun", "train", *words]


def test_versions_name_the_report_and_the_checkpoints() -> None:
    found = rows(versions_section({"maml": {"metarun": "0.1.0", "torch": "2.13", "device": None}}))
    assert found[0][1].startswith("metarun ")
    assert found[1] == ["`maml`", "metarun 0.1.0, torch 2.13"]
