"""The words key=value of compare, export and report."""

from __future__ import annotations

import pytest

from metarun.cli.plain_words import names_in, note, one_path, printed_help
from metarun.errors import UserError


def test_a_key_has_one_value_that_is_empty_only_where_it_may_be():
    given = {"out": "a"}
    note(given, "samples", "", "usage: x", may_be_empty=("samples",))
    assert given == {"out": "a", "samples": ""}
    with pytest.raises(UserError, match=r"out= may occur once\.\nusage: x"):
        note(given, "out", "b", "usage: x")
    with pytest.raises(UserError, match=r"base= has no value\.\nusage: x"):
        note(given, "base", "", "usage: x")
    assert given == {"out": "a", "samples": ""}


def test_a_path_may_have_quotes_and_is_no_list():
    assert one_path("out", "'a b'", "usage: x") == "a b"
    for value in ("[a,b]", "[]", "''"):
        with pytest.raises(UserError, match="must be one path; take one\\.\nusage: x"):
            one_path("out", value, "usage: x", "; take one")


@pytest.mark.parametrize(("value", "names"), [("", []), ("a", ["a"]), ("[a, b]", ["a", "b"]), ("a,,b ,", ["a", "b"])])
def test_names_are_separated_by_commas(value: str, names: list[str]):
    assert names_in(value) == names


def test_help_is_printed_where_it_is_asked_for(capsys: pytest.CaptureFixture[str]):
    assert not printed_help(["run", "out=a"], "usage: x")
    assert capsys.readouterr().out == ""
    assert printed_help(["run", "-h"], "usage: x")
    assert capsys.readouterr().out == "usage: x\n"
