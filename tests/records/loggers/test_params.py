"""A config as flat parameters."""

from __future__ import annotations

from metarun.records.loggers.params import flatten, shown


def test_a_config_flattens_to_dotted_scalars() -> None:
    config = {"seed": 0, "task": {"_target_": "pack.Glyphs", "ways": 5, "deep": {"x": True}}, "trust": [], "resume": None}
    assert dict(flatten(config)) == {"seed": 0, "task": "Glyphs", "task.ways": 5, "task.deep.x": True, "trust": "[]", "resume": "null"}


def test_a_scalar_stays_and_everything_else_becomes_text() -> None:
    assert [shown(value) for value in (1, 0.5, True, "a", None, [1, 2])] == [1, 0.5, True, "a", "null", "[1, 2]"]
