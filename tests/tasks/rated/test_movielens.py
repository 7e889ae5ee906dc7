"""The three layouts of MovieLens, each from a tiny copy, and the real ml-latest-small where it is present."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from metarun.errors import UserError
from metarun.tasks.rated.files import RatingFiles, read_ratings
from metarun.tasks.rated.movielens import GENRES, layout_of


def latest(folder: Path) -> Path:
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,10,4.0,1\n1,20,0.5,2\n2,10,3.0,3\n")
    movies = '10,"American President, The (1995)",Comedy|Drama\n20,Nameless,(no genres listed)\n30,Unrated (2001),War\n'
    (folder / "movies.csv").write_text("movieId,title,genres\n" + movies)
    return folder


def hundred(folder: Path) -> Path:
    (folder / "u.data").write_text("7\t5\t4\t881250949\n7\t6\t1\t881250950\n8\t5\t3\t881250951\n")
    flags = {5: ["Comedy"], 6: ["Film-Noir", "War"]}
    rows = [
        f"{number}|Caf\xe9 {number} (1994)|{date}||http://x|" + "|".join("1" if name in flags[number] else "0" for name in GENRES)
        for number, date in ((5, "01-Jan-1995"), (6, ""))
    ]
    (folder / "u.item").write_bytes("\n".join(rows).encode("latin-1"))
    (folder / "u.user").write_text("7|24|M|technician|85711\n8|53|F|other|T8H1N\n")
    return folder


def million(folder: Path) -> Path:
    (folder / "ratings.dat").write_text("1::3::5::978300760\n1::4::2::978302109\n2::3::4::978298413\n")
    (folder / "movies.dat").write_bytes("3::Les Mis\xe9rables (1995)::Drama|Musical\n4::Jumanji (1995)::Adventure\n".encode("latin-1"))
    (folder / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::70072\n")
    return folder


def read(folder: Path):
    return read_ratings(RatingFiles(path=str(folder)))


def known(data, of: str, name: str):
    feature = data.feature(of, name)
    return dict(zip(getattr(data, f"{of}s").names, feature.values, strict=True))


def rated(data):
    pairs = zip(data.user.tolist(), data.item.tolist(), data.rating.tolist(), strict=True)
    return {(data.users.names[user], data.items.names[item]): rating for user, item, rating in pairs}


def test_ml_latest_has_half_stars_genres_and_years_in_the_titles(tmp_path: Path):
    data = read(latest(tmp_path))
    assert rated(data) == {("1", "10"): 4.0, ("1", "20"): 0.5, ("2", "10"): 3.0}
    assert data.scale == (0.5, 5.0)
    assert data.items.names == ("10", "20")
    assert data.items.titles == ("American President, The (1995)", "Nameless")
    assert known(data, "item", "genres") == {"10": ("Comedy", "Drama"), "20": ()}
    assert known(data, "item", "year")["10"] == 1995
    assert np.isnan(known(data, "item", "year")["20"])


def test_ml_100k_has_whole_stars_demographics_and_years_in_the_release_dates(tmp_path: Path):
    data = read(hundred(tmp_path))
    assert rated(data) == {("7", "5"): 4, ("7", "6"): 1, ("8", "5"): 3}
    assert data.scale == (1.0, 5.0)
    assert known(data, "item", "genres") == {"5": ("Comedy",), "6": ("Film-Noir", "War")}
    assert known(data, "item", "year") == {"5": 1995, "6": 1994}
    assert data.items.titles[0] == "Caf\xe9 5 (1994)"
    assert known(data, "user", "age") == {"7": 24, "8": 53}
    assert [known(data, "user", name)["7"] for name in ("gender", "occupation", "region")] == ["M", "technician", "8"]
    assert known(data, "user", "region")["8"] == ""


def test_ml_1m_has_ages_that_are_codes(tmp_path: Path):
    data = read(million(tmp_path))
    assert rated(data) == {("1", "3"): 5, ("1", "4"): 2, ("2", "3"): 4}
    assert data.scale == (1.0, 5.0)
    assert data.items.titles[0] == "Les Mis\xe9rables (1995)"
    feature = data.feature("user", "age")
    assert feature is not None
    assert feature.kind == "category"
    assert known(data, "user", "age") == {"1": "1", "2": "56"}
    assert known(data, "user", "gender") == {"1": "F", "2": "M"}


@pytest.mark.parametrize(("make", "missing"), [(hundred, "u.user"), (million, "users.dat"), (latest, "movies.csv"), (hundred, "u.item")])
def test_a_table_of_users_or_items_may_be_missing(make, missing: str, tmp_path: Path):
    (make(tmp_path) / missing).unlink()
    assert len(read(tmp_path).rating) == 3


def test_the_file_of_the_ratings_stands_for_its_folder(tmp_path: Path):
    latest(tmp_path)
    assert read(tmp_path / "ratings.csv").items.titles == read(tmp_path).items.titles


def test_the_folder_gives_the_name_and_all_files_give_the_fingerprint(tmp_path: Path):
    (tmp_path / "ml-small").mkdir()
    data = read(latest(tmp_path / "ml-small"))
    assert data.name == "ml-small"
    assert set(data.files["sources"]) == {"ratings.csv", "movies.csv"}


@pytest.mark.parametrize(
    ("make", "file", "text", "words"),
    [
        (hundred, "u.data", "7\t5\tgood\t1\n", "line 1 of .*u.data has 'good' as rating, which is not a number; correct it"),
        (hundred, "u.data", "7\t5\n", "line 1 of .*u.data has 2 fields between tabs; it needs 3"),
        (hundred, "u.data", "7\t5\t9\t1\n7\t6\t2\t1\n", "1 rating of .*u.data outside of 1 to 5, such as 9 on line 1"),
        (hundred, "u.data", "7\t5\t4\t1\n7\t5\t2\t1\n", "user '7' and item '5' on lines 1 and 2"),
        (million, "ratings.dat", "1::3::nan::1\n", "has 'nan' as rating, which is not a number"),
        (million, "ratings.dat", "\n", "has no rating"),
        (
            latest,
            "ratings.csv",
            "userId,movieId,rating\n1,10,x\n",
            "line 2 of .*ratings.csv has 'x' in the rating column 'rating', which is not a number",
        ),
        (latest, "ratings.csv", "userId,movieId,rating\n1,10,5.5\n1,20,1\n", "outside of 0.5 to 5, such as 5.5 on line 2"),
        (
            latest,
            "movies.csv",
            "movieId,title,genres\n77,A,B\n",
            "none of the 2 items of the ratings, such as '10', is in the table of items",
        ),
        (hundred, "u.user", "7|24|M|technician|85711\n7|25|M|other|1\n", "the table of users has the user '7' more than once"),
        (hundred, "u.user", "7|old|M|technician|85711\n", "line 1 of .*u.user has the age 'old', which is not a number"),
    ],
)
def test_a_broken_file_is_one_sentence(make, file: str, text: str, words: str, tmp_path: Path):
    (make(tmp_path) / file).write_text(text)
    with pytest.raises(UserError, match=words):
        read(tmp_path)


def test_a_folder_without_ratings_names_the_files_that_it_lacks(tmp_path: Path):
    with pytest.raises(
        UserError, match=r"has none of the files ratings.csv, u.data, ratings.dat of a MovieLens folder; give one, or a CSV"
    ):
        layout_of(tmp_path)


def test_keys_of_csv_files_are_refused_for_a_movielens_folder(tmp_path: Path):
    with pytest.raises(UserError, match=r"task.item is a key of CSV files, and .* is a MovieLens folder"):
        read_ratings(RatingFiles(path=str(latest(tmp_path)), item="movieId"))


@pytest.mark.skipif(not os.environ.get("METARUN_DATA"), reason="needs movielens/ml-latest-small in METARUN_DATA")
def test_ml_latest_small_has_the_numbers_that_its_readme_states():
    """100,836 ratings of 610 users with at least 20 each; 365 users have 13 to 100."""
    data = read(Path(os.environ["METARUN_DATA"]) / "movielens" / "ml-latest-small")
    counts = np.bincount(data.user)
    assert (len(data.rating), len(counts), counts.min()) == (100_836, 610, 20)
    assert ((counts >= 13) & (counts <= 100)).sum() == 365
    assert set(np.unique(data.rating)) == set(np.arange(0.5, 5.5, 0.5))
    genres = data.feature("item", "genres")
    assert genres is not None
    assert len({word for words in genres.values for word in words}) == 19
