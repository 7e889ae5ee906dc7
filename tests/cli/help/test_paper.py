"""The paper of an option, read from text."""

from __future__ import annotations

from pathlib import Path

import pytest

from metarun.cli.help.comments import header_of
from metarun.cli.help.paper import docstring_of, module_file, paper_of
from metarun.wiring.option_files import keys_of, options, shipped, text_of

OWN = ("gbml", "scratch")
"""Algorithms without a paper: a family, and a baseline."""


@pytest.mark.parametrize("name", [f"{group}/{option}" for group in ("algo", "algo/update") for option in options(group)])
def test_every_algorithm_and_update_rule_has_its_paper_with_a_title_and_a_year(name: str) -> None:
    paper = paper_of(str(keys_of(name).get("_target_")), header_of(text_of(name, [shipped()]) or "").parts)
    assert bool(paper) == (name.rpartition("/")[2] not in OWN)
    if paper:
        assert paper.count('"') >= 2
        assert any(str(year) in paper for year in range(1960, 2030))


def test_the_header_wins_over_the_docstring() -> None:
    assert paper_of("metarun.algorithms.maml.Maml", {"Paper": "Paper: A. Author."}) == "A. Author."
    assert paper_of("metarun.algorithms.maml.Maml", {}).startswith("Chelsea Finn, Pieter Abbeel, Sergey Levine.")
    assert paper_of("", {}) == ""


def test_a_users_module_is_read_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text('"""Mine.\n\nA. Author.\n"Title", 2026.\n\nMore.\n"""\nraise SystemExit\n')
    (tmp_path / "broken.py").write_text("def (:\n")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack/__init__.py").write_text('"""A package."""\n')
    assert paper_of("mine.Mine", {}) == 'A. Author. "Title", 2026.'
    assert paper_of("broken.Thing", {}) == ""
    assert paper_of("nowhere.at.all.Thing", {}) == ""
    assert module_file("pack") == tmp_path / "pack/__init__.py"
    assert module_file("../mine") is None
    assert docstring_of(tmp_path / "pack/__init__.py") == "A package."
