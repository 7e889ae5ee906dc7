"""CSV files of ratings: the columns, their usual names, and tables beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from metarun.errors import UserError
from metarun.tasks.rated.files import RatingFiles, read_ratings

PLAIN = "user_id,item_id,stars\nann,tea,5\nann,pie,1\nbob,tea,4\n"


def read(folder: Path, text: str = PLAIN, encoding: str = "utf-8", **keys):
    (folder / "shop.csv").write_bytes(text.encode(encoding))
    return read_ratings(RatingFiles(path=str(folder / "shop.csv"), **keys))


def rated(data):
    pairs = zip(data.user.tolist(), data.item.tolist(), data.rating.tolist(), strict=True)
    return {(data.users.names[user], data.items.names[item]): rating for user, item, rating in pairs}


EXPECTED = {("ann", "tea"): 5, ("ann", "pie"): 1, ("bob", "tea"): 4}


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace("user_id,item_id,stars", "User-ID,ISBN,Book-Rating"),
        PLAIN.replace("user_id,item_id,stars", '"userId","movieId","rating"'),
        "when,score,product,reviewer\n1,5,tea,ann\n2,1,pie,ann\n3,4,tea,bob\n",
    ],
)
def test_usual_names_and_delimiters_are_found(text: str, tmp_path: Path):
    data = read(tmp_path, text)
    assert rated(data) == EXPECTED
    assert data.scale == (1, 5)
    assert data.name == "shop"


def test_utf_16_and_decimal_commas_are_read(tmp_path: Path):
    data = read(tmp_path, "user;item;rating\nJosé;thé;4,5\nJosé;pie;1,25\n", encoding="utf-16")
    assert rated(data) == {("José", "thé"): 4.5, ("José", "pie"): 1.25}


def test_columns_with_other_names_are_named_by_keys(tmp_path: Path):
    text = PLAIN.replace("user_id,item_id,stars", "who,what,how")
    assert rated(read(tmp_path, text, user="who", item="what", rating="how")) == EXPECTED


def test_tables_give_the_features_of_users_and_items_and_unknown_ones_have_none(tmp_path: Path):
    (tmp_path / "people.csv").write_text("user_id,age\nbob,30\nzoe,9\n")
    (tmp_path / "goods.csv").write_text("item_id,kind\npie,food\ntea,drink\ncup,food\nfig,food\nnut,food\n")
    data = read(tmp_path, users_path=str(tmp_path / "people.csv"), items_path=str(tmp_path / "goods.csv"))
    age, kind = data.feature("user", "age"), data.feature("item", "kind")
    assert age is not None
    assert kind is not None
    ages = dict(zip(data.users.names, age.values.tolist(), strict=True))
    assert ages["bob"] == 30
    assert ages["ann"] != ages["ann"]
    assert dict(zip(data.items.names, kind.values, strict=True)) == {"tea": "drink", "pie": "food"}
    assert set(data.files["sources"]) == {"shop.csv", "people.csv", "goods.csv"}


def test_users_and_items_without_a_rating_inside_of_the_scale_are_gone(tmp_path: Path):
    data = read(tmp_path, PLAIN + "eve,fig,0\n", scale=[1, 5], outside="drop")
    assert data.users.names == ("ann", "bob")
    assert data.items.names == ("tea", "pie")


@pytest.mark.parametrize(
    ("text", "keys", "words"),
    [
        ("a,b,c\n1,2,3\n", {}, "has the columns a, b, c, and none has a usual name for the user; name it with task.user=COLUMN"),
        (PLAIN, {"user": "userid"}, "task.user: .*shop.csv has no column 'userid'; it has user_id, item_id, stars. Did you mean 'user_id'"),
        (PLAIN, {"user": "item_id"}, "must be three columns, and here they are item_id, item_id, stars"),
        ("1,2,3\n1,3,4\n", {}, "has the first line 1, 2, 3; it must be a header with the names of the columns"),
        (
            PLAIN + "bob,pie,good\n",
            {},
            "line 5 of .*shop.csv has 'good' in the rating column 'stars', which is not a number; correct it, or name",
        ),
        (PLAIN + "bob,pie,\n", {}, "line 5 of .*shop.csv has no value in column 'stars'"),
        (PLAIN + "bob,,3\n", {}, "line 5 of .*shop.csv has no value in column 'item_id'"),
        (PLAIN + "bob,tea,3\n", {}, "user 'bob' and item 'tea' on lines 4 and 5"),
        (PLAIN, {"scale": [1, 4]}, "1 rating of .*shop.csv outside of 1 to 4, such as 5 on line 2"),
        (PLAIN, {"scale": [5, 1]}, r"task.scale=\[5, 1\] must be the lowest rating and then the highest one"),
        (PLAIN, {"several": ["tags"]}, "task.several names 'tags', which is no feature; the features are none"),
        ("user_id,item_id,stars\n", {}, "has no rows below its header line"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(text: str, keys: dict, words: str, tmp_path: Path):
    with pytest.raises(UserError, match=words):
        read(tmp_path, text, **keys)


def test_a_path_without_a_file_is_one_sentence(tmp_path: Path):
    with pytest.raises(UserError, match=r"task.path=.*nothing.csv: there is no such file or folder"):
        read_ratings(RatingFiles(path=str(tmp_path / "nothing.csv")))


def test_a_csv_file_with_its_own_tables_is_a_plain_table_and_so_is_a_folder_without_the_file_of_the_movies(tmp_path: Path):
    (tmp_path / "ratings.csv").write_text(PLAIN)
    (tmp_path / "items.csv").write_text("item_id,price\ntea,1\npie,2\n")
    tables = {"items_path": str(tmp_path / "items.csv")}
    for path in (tmp_path, tmp_path / "ratings.csv"):
        assert rated(read_ratings(RatingFiles(path=str(path)))) == EXPECTED
        assert read_ratings(RatingFiles(path=str(path), **tables)).feature("item", "price") is not None
    (tmp_path / "movies.csv").write_text("movieId,title,genres\ntea,Tea (1999),Drama\n")
    assert read_ratings(RatingFiles(path=str(tmp_path / "ratings.csv"), **tables)).feature("item", "price") is not None
    with pytest.raises(UserError, match=r"task.items_path is a key of CSV files, and .* is a MovieLens folder"):
        read_ratings(RatingFiles(path=str(tmp_path), **tables))
