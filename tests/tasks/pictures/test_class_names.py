"""The names of classes: text, each once."""

from __future__ import annotations

from pathlib import Path

import pytest

from metarun.errors import UserError
from metarun.tasks.pictures.class_names import check_names, composed


def test_a_name_has_one_spelling() -> None:
    assert composed("e\u0301") == composed("\u00e9") == "\u00e9"


def test_names_that_look_the_same_are_refused() -> None:
    with pytest.raises(UserError, match=r"two class folders 'caf.', whose names use different code points"):
        check_names(Path("photos"), ["cafe\u0301", "caf\u00e9"])
    check_names(Path("photos"), ["cafe", "caf\u00e9"])


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(UserError, match=r"'a\\udcff' of 'photos' has a name that is not UTF-8"):
        check_names(Path("photos"), ["a\udcff"])
