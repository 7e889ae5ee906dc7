"""Tables of features: the kind of each column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from metarun.errors import UserError
from metarun.tasks.rated.feature_table import check_names, read_features

TEXT = """isbn;title;author;tags;pages;shelf;link
a;First;Smith;war|love;120;1;http://a
b;Second;Jones;;;2;http://b
c;Third;Smith;love; 80;1;http://c
d;Fourth;Smith;war;100;2;http://d
"""


def table(folder: Path, text: str = TEXT, identifier: str = "isbn", categorical=("shelf",), several=("tags",), separator="|", decimal=None):
    (folder / "books.csv").write_text(text)
    return read_features(str(folder / "books.csv"), "item", identifier, categorical, several, separator, decimal)


def test_columns_are_words_numbers_or_several_words_and_a_column_of_links_is_no_feature(tmp_path: Path):
    found = table(tmp_path)
    features = {each.name: each for each in found.features}
    assert {name: each.kind for name, each in features.items()} == {
        "author": "category",
        "tags": "several",
        "pages": "number",
        "shelf": "category",
    }
    assert features["tags"].values == [("war", "love"), (), ("love",), ("war",)]
    np.testing.assert_array_equal(features["pages"].values, [120, np.nan, 80, 100])
    assert features["shelf"].values == ["1", "2", "1", "2"]
    assert found.names == ["a", "b", "c", "d"]
    assert found.titles == ["First", "Second", "Third", "Fourth"]


def test_the_first_column_has_the_identifiers_where_no_column_has_the_name(tmp_path: Path):
    assert table(tmp_path, identifier="book").names == ["a", "b", "c", "d"]


def test_the_identifiers_may_stand_in_another_column(tmp_path: Path):
    assert table(tmp_path, "x,isbn\n1,a\n2,b\n", several=(), categorical=()).names == ["a", "b"]


def test_decimal_commas_and_other_separators_are_read(tmp_path: Path):
    found = table(tmp_path, "isbn;price;tags\na;1,5;x/y\nb;2,5;y\n", categorical=(), separator="/", decimal="comma")
    assert found.features[0].values.tolist() == [1.5, 2.5]
    assert found.features[1].values == [("x", "y"), ("y",)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("isbn,link\na,x\nb,y\nc,z\n", r"task.items_path=.*has the columns isbn, link, and none of them is a feature"),
        ("isbn,pages\n", r"task.items_path=.*has no rows below its header line"),
        ("", r"task.items_path=.*is empty"),
        ("isbn,pages\na,1,2\n", "line 2 of .* has 3 fields, but the header has 2 columns"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_sentence_that_names_its_own_key(text: str, words: str, tmp_path: Path):
    with pytest.raises(UserError, match=words):
        table(tmp_path, text, several=(), categorical=())


def test_a_name_of_no_feature_is_refused_with_the_nearest():
    with pytest.raises(
        UserError, match=r"task.several names 'tag', which is no feature; the features are tags, pages. Did you mean 'tags'"
    ):
        check_names([], ["tag"], ["tags", "pages"])
    check_names(["pages"], ["tags"], ["tags", "pages"])
