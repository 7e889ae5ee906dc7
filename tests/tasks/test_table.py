from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from small import composed

from metarun.errors import UserError
from metarun.tasks.table import table
from metarun.tasks.tables import standardising
from metarun.wiring.checking import check_values

HOUSES = {f"h{house}": [(rooms, 10 * house + rooms) for rooms in range(6)] for house in range(7)}


def write(folder: Path, text: str) -> str:
    path = folder / "data.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def houses(folder: Path, **options):
    """Seven tasks of six rows; rows of the tasks are interleaved, price = 10 * house + rooms."""
    lines = [f"{house},{rows[place][0]},{rows[place][1]}" for place in range(6) for house, rows in HOUSES.items()]
    path = write(folder, "\n".join(["house,rooms,price", *lines]))
    return table(**{"path": path, "task_column": "house", "target": "price", "shots": 2, "queries": 2, **options})


def raw(source, part) -> list[tuple[int, int]]:
    """Turn standardised rows back into (rooms, price)."""
    x = (part.x * source.inputs.std + source.inputs.mean)[:, 0].round().long().tolist()
    y = (part.y * source.targets.std + source.targets.mean)[:, 0].round().long().tolist()
    return list(zip(x, y, strict=True))


def test_an_episode_holds_different_rows_of_one_task_of_its_split(tmp_path: Path):
    source = houses(tmp_path)
    for split in ("train", "val", "test"):
        for index in range(30):
            rows = [row for part in source.episode(split, index) for row in raw(source, part)]
            assert len(set(rows)) == 4
            house = f"h{rows[0][1] // 10}"
            assert house in source.tasks[split]
            assert set(rows) <= set(HOUSES[house])


def test_all_tasks_of_a_split_come_up(tmp_path: Path):
    source = houses(tmp_path)
    seen = {raw(source, source.episode("train", index).support)[0][1] // 10 for index in range(60)}
    assert {f"h{house}" for house in seen} == set(source.tasks["train"])


def test_the_splits_are_disjoint_and_hold_every_task(tmp_path: Path):
    tasks = houses(tmp_path).tasks
    assert {split: len(names) for split, names in tasks.items()} == {"train": 5, "val": 1, "test": 1}
    assert sorted(name for names in tasks.values() for name in names) == sorted(HOUSES)


def test_the_split_depends_on_its_seed_and_not_on_the_size_of_episodes(tmp_path: Path):
    base = houses(tmp_path).tasks
    assert houses(tmp_path, shots=4, seed=9, eval_seed=9).tasks == base
    assert any(houses(tmp_path, split_seed=seed).tasks != base for seed in (1, 2))


def test_given_tasks_restore_a_split_exactly(tmp_path: Path):
    drawn = houses(tmp_path, split_seed=1)
    restored = houses(tmp_path, split_seed=2, tasks=drawn.tasks)
    assert restored.tasks == drawn.tasks
    for split in ("train", "val", "test"):
        for one, other in zip(drawn.batch(split, torch.arange(9)), restored.batch(split, torch.arange(9)), strict=True):
            assert torch.equal(one.x, other.x)
            assert torch.equal(one.y, other.y)


def test_columns_are_standardised_by_the_train_tasks(tmp_path: Path):
    source = houses(tmp_path)
    train = torch.tensor([row for house in source.tasks["train"] for row in HOUSES[house]], dtype=torch.float64)
    torch.testing.assert_close(torch.cat([source.inputs.mean, source.targets.mean]), train.mean(dim=0))
    torch.testing.assert_close(torch.cat([source.inputs.std, source.targets.std]), train.std(dim=0, correction=0))
    assert source.x.dtype == torch.float32


def test_a_constant_column_becomes_zero(tmp_path: Path):
    text = "t,a,b,y\n" + "".join(f"{task},{row},5,{row}\n" for task in range(3) for row in range(4))
    source = table(path=write(tmp_path, text), task_column="t", target="y", shots=2, queries=2)
    assert source.x.shape == (12, 2)
    assert (source.x[:, 1] == 0).all()


def test_words_become_one_input_each_and_a_word_unseen_in_training_none(tmp_path: Path):
    """Tasks a, b, c are train, val, test; 'pine' stands in c only, so its input columns are those of 'elm' and 'oak'."""
    text = "t,tree,y\n" + "".join(
        f"{task},{tree},{row}\n"
        for task, trees in (("a", "oak elm"), ("b", "elm oak"), ("c", "pine oak"))
        for row, tree in enumerate(trees.split())
    )
    source = table(
        path=write(tmp_path, text),
        task_column="t",
        target="y",
        categorical=["tree"],
        shots=1,
        queries=1,
        tasks={"train": ["a"], "val": ["b"], "test": ["c"]},
    )
    assert (source.x * source.inputs.std + source.inputs.mean).tolist() == [[0, 1], [1, 0], [1, 0], [0, 1], [0, 0], [0, 1]]


def test_several_targets_and_chosen_features(tmp_path: Path):
    text = "t,a,b,y,z\n" + "".join(f"{task},{row},word,{row},{-row}\n" for task in range(3) for row in range(4))
    source = table(path=write(tmp_path, text), task_column="t", target=["y", "z"], features=["a"], shots=2, queries=1)
    query = source.episode("test", 0).query
    assert (query.x.shape, query.y.shape) == ((1, 1), (1, 2))
    torch.testing.assert_close(query.y[:, 0], -query.y[:, 1])


def test_the_unit_of_a_target_is_its_deviation_over_the_training_rows(tmp_path: Path):
    """Training rows (1, 10), (3, 30) of y and z: deviations 1 and 10."""
    text = "t,x,y,z\na,0,1,10\na,1,3,30\nb,2,9,90\nb,3,9,90\nc,4,5,50\nc,5,5,50\n"
    split = {"train": ["a"], "val": ["b"], "test": ["c"]}
    source = table(path=write(tmp_path, text), task_column="t", target=["z", "y"], tasks=split, shots=1, queries=1)
    assert source.units() == {"z": 10.0, "y": 1.0}


def test_a_batch_is_its_episodes(tmp_path: Path):
    source, indices = houses(tmp_path), torch.tensor([5, 0, 99])
    for place, index in enumerate(indices.tolist()):
        for part, alone in zip(source.batch("val", indices), source.episode("val", index), strict=True):
            assert torch.equal(part.x[place], alone.x)
            assert torch.equal(part.y[place], alone.y)


def test_small_tasks_of_all_splits_are_said_at_once_and_a_split_that_is_not_used_may_have_them(tmp_path: Path):
    with pytest.raises(UserError, match=r"(?s)3 things need a change:.*5 of the 5 train.*1 of the 1 val.*1 of the 1 test"):
        houses(tmp_path, shots=5)
    source = houses(tmp_path, shots=4, train_shots=5, used=["test"])
    assert len(source.episode("test", 0).support.x) == 4
    with pytest.raises(UserError, match=r"5 of the 5 train tasks have too few rows.*Lower task.train_shots or task.queries"):
        source.episode("train", 0)


def test_small_tasks_are_left_out_where_asked_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    text = "t,x,y\n" + "".join(f"{task},{row},{row}\n" for task in range(5) for row in range(6)) + "tiny,1,1\n"
    options = {"path": write(tmp_path, text), "task_column": "t", "target": "y", "shots": 2, "queries": 2}
    tasks = {"train": ["tiny", "0", "1"], "val": ["2"], "test": ["3", "4"]}
    with pytest.raises(
        UserError, match=r"1 of the 3 train tasks have too few rows, 'tiny' only 1; 2 shots \+ 2 queries need 4.*skip_small=true"
    ):
        table(**options, tasks=tasks)
    with caplog.at_level(logging.WARNING):
        source = table(**options, tasks=tasks, skip_small=True)
    assert source.skipped == {"train": ["tiny"], "val": [], "test": []}
    assert "1 of the 3 train tasks have fewer than 4 rows and are left out" in caplog.text
    assert source.batch("train", torch.arange(50)).support.x.shape == (50, 2, 1)


def test_the_split_and_the_stream_are_pinned(tmp_path: Path):
    source = houses(tmp_path, seed=7)
    assert source.tasks == {"train": ["h5", "h1", "h3", "h6", "h0"], "val": ["h2"], "test": ["h4"]}
    episodes = {split: source.episode(split, 3) for split in ("train", "val", "test")}
    assert {split: [raw(source, part) for part in episode] for split, episode in episodes.items()} == {
        "train": [[(4, 34), (1, 31)], [(0, 30), (3, 33)]],
        "val": [[(4, 24), (5, 25)], [(3, 23), (1, 21)]],
        "test": [[(2, 42), (5, 45)], [(0, 40), (3, 43)]],
    }


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"path": "nowhere.csv"}, "task.path=nowhere.csv: there is no such file"),
        (
            {"task_column": "hause"},
            r"task.task_column: the table has no column 'hause'; it has house, rooms, price. Did you mean 'house'\?",
        ),
        ({"target": "prize"}, r"task.target: .* Did you mean 'price'\?"),
        ({"features": ["room"]}, r"task.features: .* Did you mean 'rooms'\?"),
        ({"features": ["price"]}, "task.features names 'price', which is the task column or a target"),
        ({"target": ["price", "price"]}, "task.target names 'price' more than once; name each column once"),
        ({"features": ["rooms", "rooms"]}, "task.features names 'rooms' more than once"),
        ({"features": []}, "no column left for the inputs"),
        ({"features": ["rooms"], "categorical": ["house"]}, "task.categorical names 'house', which is not among the inputs rooms"),
        ({"split": [0.5, 0.5]}, r"task.split=\[0.5, 0.5\] must be three shares above 0 that sum to 1"),
        ({"split": [0.5, 0.5, 0.5]}, "must be three shares"),
        ({"split": [0.5, "a", 0.5]}, "must be three shares"),
        (
            {"shots": 5},
            r"5 of the 5 train tasks have too few rows, 'h\d' only 6; 5 shots \+ 2 queries need 7. Lower task.shots or task.queries\.\n",
        ),
        ({"queries": -1}, "task.queries=-1 must be a whole number of at least 1"),
        ({"tasks": {"train": ["h0"], "val": ["h1"]}}, "has the splits train, val; it needs train, val, test"),
        ({"tasks": {"train": ["h0"], "val": ["h1"], "test": ["h9"]}}, "task.tasks names 'h9', but the table has no row of this task"),
        ({"tasks": {"train": ["h0"], "val": ["h1"], "test": ["h0"]}}, "names 'h0' 2 times; a task belongs to one split"),
        ({"tasks": {"train": ["h0"], "val": ["h1"], "test": []}}, "task.tasks has no task for test"),
    ],
)
def test_bad_arguments_are_told_in_a_sentence(tmp_path: Path, options: dict, sentence: str):
    with pytest.raises(UserError, match=sentence):
        houses(tmp_path, **options)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "(is empty|no rows below its header)"),
        ("t,x,y\n", "(is empty|no rows below its header)"),
        ("t,x,x,y\n1,1,1,1\n", "more than one column 'x'"),
        ("t,x,y\n1,1,1\n1,2\n", r"line 3 of .* has \d fields, but the header has 3 columns; add or remove commas\."),
        ("t,x,y\n1,1,1,1\n", r"line 2 of .* has \d fields, but the header has 3 columns; add or remove commas\."),
        ('t,x,y\n1,"1,1\n', "line 2 of .* cannot be read as CSV: a quote is opened and not closed"),
        ("t,x,y\na,1,1\nb,1,1\n", "the table has 2 tasks; a split into train, val and test needs at least 3"),
        ("t,x,y\na,1,1\nb,,1\nc,1,1\n", r"line 3 of .* has no value in column 'x'; fill it in or remove the row"),
        ("t,x,y\na,1,1\nb,1,1\nc,1,NaN\n", r"line 4 of .* has no value \('NaN'\) in column 'y'"),
        ("t,x,y\na,1,1\n,1,1\nc,1,1\n", r"line 3 of .* has no value in column 't'"),
        ("t,x,y\na,1,1\nb,red,1\nc,1,1\n", r"line 3 of .* has 'red' in the feature column 'x', which is not a number; .* task.categorical"),
        ("t,x,y\na,1,1\nb,inf,1\nc,1,1\n", r"line 3 of .* has 'inf' in the feature column 'x'"),
        ("t,x,y\na,1,high\nb,1,1\nc,1,1\n", r"line 2 of .* has 'high' in the target column 'y', which is not a number; .* numeric target"),
    ],
)
def test_a_bad_table_is_told_in_a_sentence(tmp_path: Path, text: str, sentence: str):
    with pytest.raises(UserError, match=sentence):
        table(path=write(tmp_path, text), task_column="t", target="y", shots=1, queries=1)


def test_a_file_that_is_no_text_is_told_in_a_sentence(tmp_path: Path):
    path = tmp_path / "data.csv"
    path.write_bytes("t,x,y\n1,1,1\nMüller,1,1\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"line 3 of .* has the byte 0xfc, which is not UTF-8 there; save the file as CSV in UTF-8"):
        table(path=str(path), task_column="t", target="y")


def test_each_episode_may_draw_its_number_of_support_rows(tmp_path: Path):
    support = houses(tmp_path, shots=3, min_shots=1).batch("train", torch.arange(100)).support
    assert support.x.shape[1] == 3
    assert support.mask.sum(dim=1).unique().tolist() == [1, 2, 3]


def rows_of(folder: Path, change: dict[int, str], lines: int = 60, **options):
    """Three tasks in turn, x = y = the line; `change` replaces whole lines by their number."""
    text = ["t,x,y", *(f"{'abc'[line % 3]},{line},{line}" for line in range(2, lines))]
    for line, other in change.items():
        text[line - 1] = other
    tasks = {"train": ["a"], "val": ["b"], "test": ["c"]}
    return table(
        **{"path": write(folder, "\n".join(text)), "task_column": "t", "target": "y", "tasks": tasks, "shots": 1, "queries": 1, **options}
    )


@pytest.mark.parametrize("value", ["-1.797e308", "1e20", "-999999999"])
def test_an_outlandish_training_value_is_named(tmp_path: Path, value: str):
    with pytest.raises(UserError, match=r"line 9 of .*data\.csv has .* in the target column 'y', while half of the values"):
        rows_of(tmp_path, {9: f"a,9,{value}"})
    with pytest.raises(UserError, match=r"line 9 of .* in the feature column 'x'"):
        rows_of(tmp_path, {9: f"a,{value},9"})


def test_an_outlandish_value_of_another_split_counts_too(tmp_path: Path):
    with pytest.raises(UserError, match=r"line 10 of .* has 1e\+20 in the target column 'y'"):
        rows_of(tmp_path, {10: "b,10,1e20"})
    constant = {line: f"a,{line},5" for line in range(3, 60, 3)} | {line: f"{'bc'[line % 3 - 1]},1,5" for line in range(2, 60) if line % 3}
    with pytest.raises(UserError, match=r"the target column 'y' of .* its value 1e\+300 in line 10 is too large or too small"):
        rows_of(tmp_path, {**constant, 10: "b,10,1e300"})


@pytest.mark.parametrize("scale", ["1e-200", "1e200"])
def test_a_column_whose_squares_are_no_numbers_is_refused(tmp_path: Path, scale: str):
    text = {line: f"{'abc'[line % 3]},{line},{line}{scale[1:]}" for line in range(2, 60)}
    with pytest.raises(UserError, match="cannot be standardised by its training rows"):
        rows_of(tmp_path, text)


def test_a_constant_column_is_zero_in_training_whatever_its_value(tmp_path: Path):
    source = rows_of(tmp_path, {line: f"a,0.1,{line}" for line in range(3, 60, 3)})
    train = source.x[: source.counts["a"]]
    assert source.inputs.std.tolist() == [1.0]
    assert (source.x.sort(dim=0).values[: len(train)] == 0).all()


def test_a_task_may_be_called_na(tmp_path: Path):
    text = "t,x,y\n" + "".join(f"{task},{row},{row}\n" for task in ("NA", "None", "nan") for row in range(4))
    source = table(path=write(tmp_path, text), task_column="t", target="y", shots=1, queries=1)
    assert sorted(name for names in source.tasks.values() for name in names) == ["NA", "None", "nan"]


def test_a_table_with_semicolons_and_decimal_commas_is_the_same_table(tmp_path: Path):
    text = "t,x,y\n" + "".join(f"{task},{row / 8},{row * 1.5}\n" for task in "abc" for row in range(4))
    (tmp_path / "one").mkdir()
    plain = table(path=write(tmp_path / "one", text), task_column="t", target="y", shots=1, queries=1)
    other = table(path=write(tmp_path, text.replace(",", ";").replace(".", ",")), task_column="t", target="y", shots=1, queries=1)
    assert torch.equal(plain.x, other.x)
    assert torch.equal(plain.y, other.y)


def test_a_file_without_a_header_is_told(tmp_path: Path):
    with pytest.raises(UserError, match=r"has no column 't'; it has a, 2, 2\. The first line must be a header"):
        table(path=write(tmp_path, "a,2,2\nb,5,6\n"), task_column="t", target="y")
    with pytest.raises(UserError, match=r"has no column 't'; it has 1, 2, 3\. The first line must be a header"):
        table(path=write(tmp_path, "1,2,3\n4,5,6\n"), task_column="t", target="y")


def test_a_column_of_too_many_words_is_refused_with_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(standardising, "_MOST_BYTES", 8 * 60 * 10)
    with pytest.raises(UserError, match=r"task\.categorical names 'x', which has 19 words in the training tasks; .* for 58 rows"):
        rows_of(tmp_path, {}, categorical=["x"])
    rows_of(tmp_path, {})


@pytest.mark.parametrize("sign", ["decimal=point", "decimal=comma", "decimal='.'", "delimiter=semicolon", "delimiter=';'"])
def test_the_words_and_characters_that_the_messages_name_are_accepted(sign: str):
    config = composed("task=table", "task.path=x", "task.task_column=a", "task.target=b", f"task.{sign}")
    assert check_values({"task": config["task"]}, ["task"])
