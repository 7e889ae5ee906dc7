"""The meaning of the columns of x, for a backbone that reads categories: from the task source into the config, and so into checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metarun.backbones.embeddings import CATEGORY
from metarun.errors import UserError, printable
from metarun.types import TaskSource, WithColumns
from metarun.wiring.instantiate import TARGET
from metarun.wiring.shapes import Shapes

KEY = "columns"


def fill_columns(config: dict[str, Any], source: TaskSource) -> None:
    """Write the columns of the source into the config of a backbone that has the key `columns`.

    A checkpoint's config states the columns already. They must then be those of the source, since an embedding belongs to one category.
    Raises UserError where they differ, and where a source does not say what its columns mean. If the source is the user's own, the user
    may state its columns.
    """
    backbone = config["backbone"]
    if isinstance(source, Shapes):  # the shapes of a checkpoint stand for data that had the stated columns
        return
    if KEY not in backbone:
        _refuse_numbers(config, source)
        return
    stated = backbone[KEY]
    if not isinstance(source, WithColumns):
        if stated is None:
            raise UserError(
                f"{_named(config)} embeds categories, and {config['task'][TARGET]} does not say which of its columns are "
                "categories; choose task=ratings, or another backbone, such as backbone=mlp."
            )
        _refuse_without(config, stated)
        return
    found = [list(column) for column in source.columns()]
    if stated is None:
        config["backbone"] = {**backbone, KEY: found}
    elif [list(column) for column in stated] != found:
        raise UserError(
            f"the columns of the task differ from the columns of the network: {_difference(stated, found)}. Take the data that the "
            "network was trained with, or backbone.columns=null in a new run."
        )


def has_columns(config: Mapping[str, Any]) -> bool:
    """Return whether the backbone of a config embeds columns."""
    return config["backbone"].get(KEY) is not None


def _refuse_without(config: Mapping[str, Any], stated: Any) -> None:
    """Raise UserError where a network of columns would read a task of metarun that has none. A user's own task may have them unsaid."""
    task = str(config["task"][TARGET])
    if task.startswith("metarun."):
        names = printable(", ".join(str(column[0]) for column in stated))
        raise UserError(
            f"{_named(config)} embeds the columns {names} (backbone.columns), and {task} does not say which of its columns are categories; "
            "choose task=ratings with the data of the training."
        )


def _refuse_numbers(config: Mapping[str, Any], source: TaskSource) -> None:
    """Raise UserError where a backbone of metarun would read the numbers of categories as quantities. A user's own may embed them."""
    categories = [name for name, kind, *_ in source.columns() if kind == CATEGORY] if isinstance(source, WithColumns) else []
    if categories and str(config["backbone"].get(TARGET)).startswith("metarun."):
        raise UserError(
            f"the task has the categories {printable(', '.join(categories))}, and {_named(config)} would read their numbers as "
            "quantities; train with backbone=embeddings."
        )


def _named(config: Mapping[str, Any]) -> str:
    """Return the backbone as the user typed it; by its class where the config does not say."""
    option = config.get("options", {}).get("backbone")
    return f"backbone {config['backbone'].get(TARGET)}" if option is None else f"backbone={printable(str(option))}"


def _difference(stated: Any, found: list[list[Any]]) -> str:
    """Return the first difference in words."""
    mine, theirs = ({str(column[0]): list(column) for column in columns} for columns in (stated, found))
    for name, column in mine.items():
        if name not in theirs:
            return f"the task has no column '{printable(name)}'"
        if theirs[name] != column:
            return f"'{printable(name)}' has {column[2]:,} entries in the network and {theirs[name][2]:,} in the task"
    extra = [name for name in theirs if name not in mine]
    return f"the network has no column '{printable(extra[0])}'" if extra else "their order differs"
