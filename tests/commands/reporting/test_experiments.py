"""The `reproduce` entries of the shipped experiments."""

from __future__ import annotations

from metarun.commands.reporting.experiments import reproduce_of


def test_an_experiment_tells_its_differences() -> None:
    assert "30-way" in reproduce_of("omniglot_5w1s_protonet")["differences"]["task.train_ways"]


def test_an_experiment_has_the_entries_of_the_one_that_it_extends() -> None:
    found = reproduce_of("omniglot_20w5s_fomaml")
    assert found["published"] == 0.979
    assert set(reproduce_of("omniglot_20w5s_maml").get("differences", {})) <= set(found.get("differences", {}))


def test_an_unknown_name_has_none() -> None:
    assert reproduce_of("../../etc/passwd") == reproduce_of("nothing") == {}
