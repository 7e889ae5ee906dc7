"""Recommendations for a new user: equal to those from Python, without the data, with one sentence for each mistake in the file."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_ratings import FILMS
from small_runs import predict

import metarun
from metarun.commands.model import load
from metarun.commands.predicting.ratings import Given, read_ratings, scores
from metarun.commands.predicting.recommending import Recommendation
from metarun.errors import UserError

KNOWN = "item,rating\nitem 3,5\nitem 17,1\nitem 20,4\n"


def read(folder: Path) -> list[list[str]]:
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_all_items_that_the_user_has_not_rated_are_ranked_as_in_python(
    ratings_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my.csv").write_text(KNOWN)
    report = predict(ratings_run, tmp_path / "my.csv", None, tmp_path / "p", top=4, user={"group": "left"})
    header, *rows = read(tmp_path / "p")
    assert header == ["item", "title", "predicted rating"]
    items = [row[0] for row in rows]
    assert sorted(items) == sorted({f"item {number}" for number in range(1, 41)} - {"item 3", "item 17", "item 20"})
    predictor = metarun.load(ratings_run, device="cpu").adapt({"item": ["item 3", "item 17", "item 20"], "group": "left"}, [5, 1, 4])
    ratings = np.array([float(row[2]) for row in rows])
    expected = predictor.predict({"item": items, "group": "left"}).clip(1, 5)
    np.testing.assert_allclose(ratings, expected, rtol=1e-6)  # the order of the rows changes the rounding on some processors
    assert (np.diff(ratings) <= 0).all()
    assert [each.item for each in predictor.recommend(top=4)] == items[:4]
    assert [each["item"] for each in report["top"]] == items[:4]
    printed = capsys.readouterr().out
    assert "37 items ranked from 3 known ratings; the best 4 items:" in printed
    assert f"4. {items[3]}: " in printed
    assert items[3] in (tmp_path / "p/predictions.html").read_text(encoding="utf-8")


def test_facts_about_the_user_change_the_predictions(ratings_run: Path) -> None:
    model = load(ratings_run, device="cpu")
    one, other = (model.adapt({"item": ["item 3"], "group": group}, [5]).recommend(40) for group in ("left", "right"))
    assert {each.rating for each in one} != {each.rating for each in other}


def test_a_query_ranks_its_items_alone_and_is_scored_where_it_has_ratings(ratings_run: Path, tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_text(KNOWN)
    (tmp_path / "asked.csv").write_text("title;stars\nitem 5;3\nitem 6;2\n")
    report = predict(ratings_run, tmp_path / "my.csv", tmp_path / "asked.csv", tmp_path / "p")
    assert {row[0] for row in read(tmp_path / "p")[1:]} == {"item 5", "item 6"}
    predicted = {row[0]: float(row[2]) for row in read(tmp_path / "p")[1:]}
    assert report["mae"] == pytest.approx((abs(predicted["item 5"] - 3) + abs(predicted["item 6"] - 2)) / 2)


def test_the_error_is_compared_with_the_mean_of_the_known_ratings() -> None:
    """Known: 5 and 2, mean 3.5. True: 4 and 2, predicted 3 and 4: errors 1 and 2, of the mean 0.5 and 1.5."""
    query, support = Given("q", [], [0, 1], np.array([4.0, 2.0])), Given("s", [], [2, 3], np.array([5.0, 2.0]))
    lines, facts = scores(query, support, [Recommendation("50", "", 4.0), Recommendation("1", "", 3.0)], FILMS)
    assert (facts["mae"], facts["mae_of_the_mean"], facts["rows"]) == (1.5, 1.0, 2)
    assert "mean absolute error 1.5" in lines[0]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("item,rating\nHeat,5\nXyz,3\n", r"support=.*my\.csv: 1 item is not among the 4 items of the model: 'Xyz'"),
        ("item,rating\nHeat,6\n", r"line 2 of .* has the rating 6; ratings go from 0\.5 to 5"),
        ("item,rating\nHeat,good\n", r"line 2 of .* has the rating 'good', which is no number"),
        ("item,rating\nHeat,nan\n", r"has the rating nan; ratings go from"),
        ("item,rating\nHeat,5\nheat (1995),4\n", r"line 3 of .* has 'Heat \(1995\)' again, after line 2"),
        ("werk,rating\nHeat,5\n", r"has no column of items, such as item or title; it has werk, rating"),
        ("item,stern\nHeat,5\n", r"has no column of ratings, such as rating; it has item, stern"),
        ("item,rating\n", r"has no row below its header"),
        ("", r"support=.* is empty"),
        (
            "userId,item,rating\na,Heat,5\nb,1,4\nc,Heat,2\n",
            r"support=.* has lines of 3 users in its column 'userId', such as 'a' and 'b'; keep the lines of one user\.",
        ),
    ],
)
def test_a_file_that_does_not_fit_the_model_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "my.csv").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_ratings(str(tmp_path / "my.csv"), "support", FILMS, {})


@pytest.mark.parametrize("header", ["title,rating", "movieId,Rating", "werk,sterne", "userId,movie_id,rating,timestamp"])
def test_the_columns_may_have_the_usual_names_and_those_of_the_training(tmp_path: Path, header: str) -> None:
    cells = {
        "title": "Heat",
        "movieId": "50",
        "werk": "Heat",
        "movie_id": "50",
        "rating": "4.5",
        "Rating": "4.5",
        "sterne": "4.5",
        "userId": "1",
        "timestamp": "0",
    }
    row = ",".join(cells[name] for name in header.split(","))
    (tmp_path / "my.csv").write_text(f"{header}\n{row}\n")
    found = read_ratings(str(tmp_path / "my.csv"), "support", FILMS, {"item": "werk", "rating": "sterne"})
    assert found.places == [1]
    assert found.ratings is not None
    assert found.ratings.tolist() == [4.5]


def test_a_query_of_several_users_or_of_another_user_is_refused(ratings_run: Path, tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_text("user,item,rating\na,item 3,5\n")
    (tmp_path / "other.csv").write_text("user,item\nb,item 5\n")
    (tmp_path / "both.csv").write_text("user,item\na,item 5\nb,item 6\n")
    with pytest.raises(UserError, match=r"query=.*both\.csv has lines of 2 users in its column 'user'"):
        predict(ratings_run, tmp_path / "my.csv", tmp_path / "both.csv", tmp_path / "p")
    with pytest.raises(UserError, match=r"query=.*other\.csv is of the user 'b', and support=.*my\.csv of 'a'; give lines of one user"):
        predict(ratings_run, tmp_path / "my.csv", tmp_path / "other.csv", tmp_path / "q")


def test_a_column_of_users_is_the_one_of_the_training_and_may_be_that_of_the_items(tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_text("person,item,rating\na,Heat,5\nb,1,4\n")
    with pytest.raises(UserError, match="2 users in its column 'person'"):
        read_ratings(str(tmp_path / "my.csv"), "support", FILMS, {"user": "who"})
    (tmp_path / "of_members.csv").write_text("member,rating\nHeat,5\n1,4\n")
    assert read_ratings(str(tmp_path / "of_members.csv"), "support", FILMS, {"item": "member"}).user is None


def test_a_number_in_a_column_of_titles_is_a_title_before_it_is_an_identifier(tmp_path: Path) -> None:
    films = replace(FILMS, titles=("90 (1995)", *FILMS.titles[1:]))
    for header, place in (("title", 0), ("movieId", 2)):
        (tmp_path / "my.csv").write_text(f"{header},rating\n90,5\n")
        found = read_ratings(str(tmp_path / "my.csv"), "support", films, {})
        assert (found.places, found.names) == ([place], [films.names[place]])


def test_other_keys_are_refused(ratings_run: Path, tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_text(KNOWN)
    options: list[tuple[dict[str, Any], str]] = [
        ({"abstain": 0.1}, "abstain= rejects images"),
        ({"user": {"age": 3}}, "nothing about 'age' of a user; it was trained with the columns group"),
        ({"user": {"group": "middle"}}, r"'group' of the user is 'middle', and the training has left, right"),
    ]
    for number, (given, sentence) in enumerate(options):
        with pytest.raises(UserError, match=sentence):
            predict(ratings_run, tmp_path / "my.csv", None, tmp_path / f"p{number}", **given)
