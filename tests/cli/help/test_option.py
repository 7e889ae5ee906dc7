"""`metarun list GROUP OPTION`: the paper, the keys, the experiments and an example."""

from __future__ import annotations

from pathlib import Path

import pytest

from metarun.cli.help.comments import header_of
from metarun.cli.help.option import chosen_by, described, protocol
from metarun.wiring.option_files import keys_of, options, shipped, text_of
from metarun.wiring.suggestions import GROUPS


def test_an_algorithm_shows_its_paper_its_keys_its_experiments_and_an_example() -> None:
    text = described("algo", "anil", [], 80)
    assert text.startswith("algo=anil  (metarun.algorithms.maml.Maml)\n  ANIL: MAML whose inner loop")
    assert "\n\nPaper: Aniruddh Raghu, Maithra Raghu" in text
    assert "\n  algo.adapts=[head.*]  " in text
    assert text.endswith("\n\nExample:\n  metarun train algo=anil")
    assert "\n  sinusoid_maml               MAML on sinusoids" in described("algo", "maml", [], 80).split("\nExperiments:\n")[1]
    assert max(map(len, text.splitlines())) <= 80


def test_a_nested_group_shows_its_own_keys_and_a_command_that_reaches_it() -> None:
    text = described("algo/update", "momentum", [], 80)
    assert "algo.update.momentum=0.9" in text
    assert "algo.inner_steps" not in text
    assert text.endswith("  metarun train algo=gbml algo/update=momentum")
    assert "algo/update=sgd  (metarun.algorithms.updates.sgd.Sgd)" in described("algo", "gbml", [], 80)


def test_an_experiment_shows_time_score_keys_and_differences() -> None:
    text = described("experiment", "omniglot_5w1s_maml", [], 80)
    for part in ("\n\nTime: 29 minutes", "\n\nScore: 98.15 %", "\n\nPublished: 98.7 %", "\n  steps=7200", "\n  algo.test_inner_steps=3"):
        assert part in text
    assert "It chooses algo=maml task=omniglot backbone=conv4 optimizer=adam." in text
    assert "compares with accuracy 0.987 ±" in text
    assert "\n  - steps: 7,200 steps, where the paper has 60,000\n" in text
    assert text.endswith("  metarun train experiment=omniglot_5w1s_maml\n  metarun reproduce omniglot_5w1s_maml")


def test_a_users_own_option_is_described_too(tmp_path: Path) -> None:
    (tmp_path / "algo").mkdir()
    (tmp_path / "algo/mine.yaml").write_text(
        '# My own MAML.\n# Paper: A. Author. "Title", 2026.\n# Example: metarun train algo=mine seed=1\ndefaults: [maml, _self_]\n'
        "new: ???  # a new key\n"
    )
    text = described("algo", "mine", [tmp_path], 80)
    assert 'Paper: A. Author. "Title", 2026.' in text
    assert "a new key [must be given]" in text
    assert text.endswith("Example:\n  metarun train algo=mine seed=1")


def test_an_experiment_may_choose_an_option_through_another_experiment() -> None:
    roots = [shipped()]
    assert chosen_by("movielens_melu", "task", roots) == "ratings"
    assert chosen_by("movielens_protocol", "algo", roots) == "melu"
    assert chosen_by("smoke", "algo", roots) is None
    assert chosen_by("stream_omniglot_oml", "task/source", roots) == "omniglot"


def test_a_protocol_without_a_published_score_says_so() -> None:
    assert protocol({"eval": {"episodes": 600}, "source": "plots only"}, 120) == (
        "metarun reproduce scores it with episodes=600 and compares with nothing, plots only."
    )


@pytest.mark.parametrize("name", [f"{group}/{option}" for group in GROUPS for option in options(group)])
def test_the_example_in_a_header_chooses_the_option_and_options_and_keys_that_exist(name: str) -> None:
    example = header_of(text_of(name, [shipped()]) or "").parts.get("Example", "").removeprefix("Example: ")
    words = example.split()
    assert not words or words[:2] == ["metarun", "train"]
    chosen = dict(word.split("=") for word in words[2:])
    group, _, option = name.rpartition("/")
    assert not words or name == "optimizer/reptile" or chosen[group] == option
    known = {f"{each.replace('/', '.')}.{key}" for each, choice in chosen.items() if each in GROUPS for key in keys_of(f"{each}/{choice}")}
    known |= {f"algo.{key}" for key in keys_of("algo/maml")} if "algo" not in chosen else set()
    assert all(key in known or key == "steps" for key in chosen if key not in GROUPS), example
    assert all(choice in options(each) for each, choice in chosen.items() if each in GROUPS), example
