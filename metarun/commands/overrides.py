"""Changes to a checkpoint's config: those that `resume=` and `metarun eval` allow. Plain dictionaries in and out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from metarun.commands.rating_division import check_division
from metarun.errors import UserError, printable
from metarun.files.paths import expanded, names_path, word
from metarun.records.checkpoint import Checkpoint
from metarun.tasks.fingerprint import Fingerprint, differences, fingerprint_of
from metarun.types import Algorithm, TaskSource, WithChoice
from metarun.wiring.suggestions import for_key

MAY_CHANGE = ("steps", "eval_every", "save_every", "save_minutes", "patience", "trust", "logger", "device", "task.root", "task.path")
"""The keys and groups that may differ from the checkpoint when a run is resumed. The data of a run may have moved."""
PLACES = ("root", "path", "download")
"""The keys of a task source that say where its files are. A checkpoint never has `download=true` (`metarun.wiring.stored`)."""

NAMED = ("metarun.tasks.folder.folder", "metarun.tasks.ratings.ratings", "metarun.tasks.table.table")
"""The sources that name their classes or tasks after their folder or file, unless their key `data` is set."""

SAVE_MINUTES = 5
"""The value of `save_minutes` in runs that are older than the key."""
CANDIDATES = ("algo.test_inner_lrs", "algo.inner_lrs", "algo.max_inner_steps")
"""The keys with the values among which an algorithm `WithChoice` chooses."""


def resume_config(stored: Checkpoint, overrides: Mapping[str, Any], groups: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config with which a run is resumed: the checkpoint's, with the overrides.

    overrides: dotted key -> value. groups: the content of each group whose option is among them. Where the device decided by itself
    (`auto`), it decides the same again. Raises UserError for an override that differs from the checkpoint and may not change.
    """
    config = {"save_minutes": SAVE_MINUTES, **stored.config}
    device = dict(config["device"])
    for key, decided in (("task_chunk", "chunk"), ("threads", "threads"), ("compile", "compile"), ("kernels", "kernels")):
        if device.get(key, "auto") == "auto":
            device[key] = stored.execution.get(decided, "auto")
    config["device"] = device
    options = stored.config.get("options") or {}
    check_download(overrides, config)
    _check_families(overrides, config)
    for key, value in overrides.items():
        if _is_place(key):
            config = _moved(config, key, value, stored.data)
        elif key.split(".")[0] not in MAY_CHANGE:
            before = options[key] if key in options else look_up(stored.config, key)
            if before != value:
                raise UserError(
                    f"{key}={value} differs from the run's {before}; "
                    f"on resume only {', '.join(MAY_CHANGE)} may change. Start a new run for it."
                )
        elif key in groups:
            config[key] = groups[key]
        else:
            config = put(config, key, value)
    return config


def with_absolute_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config with an absolute path for each file or folder of its task, so that the run can be used from any folder.

    A text is a path where its key is named like one, and where the file or folder exists.
    """

    def settled(node: Any, key: str) -> Any:
        if isinstance(node, Mapping):
            return {name: settled(item, str(name)) for name, item in node.items()}
        if isinstance(node, (list, tuple)):
            return [settled(item, key) for item in node]
        if not (isinstance(node, str) and names_path(key)):
            return node
        place = expanded(node)
        return str(place.absolute()) if place.exists() else node

    return {**config, "task": settled(config["task"], "task")}


def check_download(typed: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuse a download into a folder that only the checkpoint names. typed: key -> value that the user typed. config: the checkpoint's."""
    for key, value in typed.items():
        if _is_place(key) and key.endswith(".download") and value is True:
            root = key.removesuffix("download") + "root"
            folder = dict(leaves(config)).get(root)
            if folder is not None and root not in typed:
                raise UserError(f"{key} would write into {folder}, a folder that the checkpoint names; give {root}=DIR too.")


def _check_families(typed: Collection[str], config: Mapping[str, Any]) -> None:
    """Refuse a list of sources for another task than a mixture. typed: keys; the command line writes `task.only` for such a list."""
    if "task.only" in typed and "only" not in config["task"]:
        raise UserError(
            "task.sources=[…] picks families of a mixture, and the checkpoint's task is no mixture. "
            "Give task=mixture too, or leave task.sources out."
        )


SENDS_TO = ("logger.wandb.entity", "logger.mlflow.tracking_uri", "logger.trackio.space_id")
"""The keys that name the place of somebody to which a logger sends the values of a run."""


def check_loggers(config: Mapping[str, Any], typed: Collection[str]) -> None:
    """Refuse to send values to a place that only the checkpoint names, since a stranger may have written the checkpoint.

    config: of the resumed run. typed: keys.
    """
    named = dict(leaves(config["logger"], "logger."))
    for key in SENDS_TO:
        if named.get(key) is not None and not {key, "logger"} & set(typed):
            raise UserError(
                f"the checkpoint sets {key}={printable(named[key])}, to which the run would send its values; if you want that, add "
                f"{word(key, str(named[key]))} to the command."
            )


def check_choice(algorithm: Algorithm, typed: Collection[str]) -> None:
    """Refuse candidates for a choice that the validations of a run have made: the choice is in the state of the checkpoint."""
    for key in CANDIDATES if isinstance(algorithm, WithChoice) else ():
        if key in typed:
            raise UserError(
                f"{key} has no effect on an evaluation, since the checkpoint holds the value that a validation of its run chose; "
                "leave the key out, or start a new run with it."
            )


def changed_data(stored: Fingerprint, source: TaskSource, typed: Collection[str]) -> list[str]:
    """Return in words how the data of a resumed run differ from those of the checkpoint. typed: the keys that the user typed."""
    now = fingerprint_of(source)
    if now and not stored and any(map(_is_place, typed)):
        return ["the checkpoint does not say what the data were"]
    return differences(stored, now)


def check_data(config: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Raise UserError where the files of a task are gone from the place that the checkpoint names.

    config: the checkpoint's, with the user's changes. stored: the checkpoint's own.
    """
    before = dict(leaves(stored["task"], "task."))
    for key, place in leaves(config["task"], "task."):
        kept = _is_place(key) and isinstance(place, str) and place == before.get(key)
        if kept and not expanded(place).exists() and config["task"].get("download") is not True:
            raise UserError(f"there is nothing at '{place}', where the checkpoint's data were; if they moved, give {key}=PLACE.")


def _is_place(key: str) -> bool:
    """Return whether a key says where a task source finds its files."""
    parts = key.split(".")
    return parts[0] == "task" and len(parts) > 1 and parts[-1] in PLACES


def _moved(config: Mapping[str, Any], key: str, value: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config with the new place of the files. The classes keep their names, which begin with the name of the old place.

    data: the fingerprint of the files.
    """
    before = look_up(config, key)
    config = put(config, key, value)
    prefix, _, last = key.rpartition(".")
    node = look_up(config, prefix)
    if last == "download" or before in (None, value) or node["_target_"] not in NAMED:
        return config
    for part in prefix.split(".")[1:]:
        data = data.get(part) if isinstance(data.get(part), Mapping) else {}  # type: ignore[assignment]
    name = data.get("name")
    return put(config, prefix, {"data": name if isinstance(name, str) else Path(str(before)).stem, **node})


def evaluation_config(stored: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checkpoint's config with the changes that `metarun eval` asks for.

    stored: the checkpoint's config. config: the keys of `eval.yaml`. Raises UserError for a key that the checkpoint's config lacks.
    """
    same_task = config.get("options", {}).get("task") is None
    own = dict(leaves(config.get("task") or {}, "task.")) if same_task else {}
    for key in (key for key in (*config.get("typed", ()), *own) if key.startswith("task.") and key.endswith("eval_seed")):
        raise UserError(f"{key} does not set the episodes of an evaluation; give seed=… instead, which the report names.")
    for check in (check_division, check_download, _check_families):
        check(own, stored)
    merged = dict(stored)
    if same_task:  # the same data: the images keep their size, also where it is overridden
        merged.pop("input_shape", None)
    for group in ("task", "algo", "backbone", "device"):
        merged = _with_group(merged, group, config)
    _refuse_conflicts(merged, config)
    if config.get("norm") is not None:
        merged = put(merged, "backbone.norm", config["norm"])
    if config.get("inner_steps") is not None:
        if not (keys := [key for key in ("test_inner_steps", "inner_steps") if key in merged["algo"]]):
            raise UserError("this checkpoint's algorithm has no inner steps to set; leave out inner_steps.")
        merged = put(merged, f"algo.{keys[0]}", config["inner_steps"])
    if "eval_seed" in merged["task"]:
        merged = put(merged, "task.eval_seed", config["seed"])
    return {**merged, "task": {**merged["task"], **_as_trained(merged["task"], stored["task"])}}


def _as_trained(task: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return keys of training episodes under which other shots or queries of an evaluation leave these episodes as they were.

    Images do not change at random, so that `split=train` scores the images of the files.
    """
    sizes = [name for name in ("shots", "queries") if task.get(name) != stored.get(name) and task.get(f"train_{name}", 0) is None]
    trained = {f"train_{name}": stored.get(f"train_{name}") or stored.get(name) for name in sizes}
    kept = {name: value for name, value in trained.items() if value is not None}
    return {**kept, **({"augment": False} if "augment" in task else {})}


SHORT = {"backbone.norm": "norm", "algo.test_inner_steps": "inner_steps"}
"""Keys of the checkpoint's config that a key of `metarun eval` sets."""


def _refuse_conflicts(merged: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise UserError for a typed key that another key of the evaluation would overwrite or make void.

    merged: the checkpoint's config with the typed keys of its groups.
    """
    typed = config.get("typed", ())
    for key, short in SHORT.items():
        decides = config.get(short)
        if key in typed and decides is not None and (value := look_up(merged, key)) != decides:
            raise UserError(f"{key}={value} and {short}={decides} differ, and {short} decides in an evaluation; give {short}={value}.")
    if "algo.inner_steps" in typed and merged["algo"].get("test_inner_steps") is not None:
        value = look_up(merged, "algo.inner_steps")
        raise UserError(f"algo.inner_steps={value} is the number of steps in training; give inner_steps={value} for an evaluation.")


def _with_group(merged: dict[str, Any], group: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config with one group replaced, where its option is named, or else with single keys of the group overridden."""
    content, option = config.get(group) or {}, config.get("options", {}).get(group)
    if option is None and group != "device":
        for key, value in _given(content, merged.get(group), config.get("typed", ()), group):
            merged = put(merged, key, value)
        return merged
    replaced = dict(content) if content else dict(merged[group])
    if group == "task":
        replaced |= _kept(merged, content, config.get("typed", ()))
    options = {} if option is None else {"options": {**merged.get("options", {}), group: option}}
    return {**merged, group: replaced, **options}


def _given(content: Mapping[str, Any], before: Any, typed: Collection[str], group: str) -> Iterator[tuple[str, Any]]:
    """Yield dotted key and value of the overrides of a group. content: nested. before: the group of the checkpoint.

    A mapping that the user typed for a key is the value of the key. As in a training, it joins the entries of the mapping that is there.
    """
    for name, value in content.items():
        key, old = f"{group}.{name}", before.get(name) if isinstance(before, Mapping) else None
        entries: Mapping[str, Any] = old if isinstance(old, Mapping) else {}
        is_node = any(inside.endswith("_target_") for inside, _ in leaves(entries))
        if isinstance(value, Mapping) and (is_node or key not in typed):
            yield from _given(value, old, typed, key)
        else:
            yield key, {**entries, **value} if isinstance(value, Mapping) else value


def _kept(stored: Mapping[str, Any], task: Mapping[str, Any], typed: Collection[str]) -> dict[str, Any]:
    """Return the keys of another task that keep the values of the training unless the user typed them.

    These are the sizes of an episode, the labels and the size of the images. task: the content of the other task.
    """
    shape = stored.get("input_shape")
    recipe = stored["algo"].get("recipe") or {}  # the sources of a mixture take their labels from here, and its own key is null
    trained = {key: stored["task"].get(key) for key in ("ways", "shots", "queries", "train_labels")}
    trained["train_labels"] = trained["train_labels"] or recipe.get("train_labels")
    if shape is not None and len(shape) == 3 and shape[1] == shape[2]:
        trained |= {"image_size": shape[1], "channels": shape[0]}
    return {key: value for key, value in trained.items() if value is not None and key in task and f"task.{key}" not in typed}


def look_up(config: Mapping[str, Any], dotted: str) -> Any:
    """Return the value at a dotted key; UserError with the nearest key where there is none."""
    node: Any = config
    parts, missing = dotted.split("."), f"there is no key '{dotted}' in the checkpoint's config"
    for place, part in enumerate(parts):
        if node is None:
            above = ".".join(parts[:place])
            raise UserError(f"{missing}, where {above} is null; give {above} as a whole: {above}={{…}}.")
        if not isinstance(node, Mapping) or part not in node:
            known = [key for key, _ in leaves(config) if key.split(".")[0] not in ("options", "input_shape")]  # that a user may type
            raise UserError(f"{missing}.{for_key(dotted, known, config.get('options') or {})}")
        node = node[part]
    return node


def put(config: Mapping[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    """Return the config with one existing key set to another value; the original stays as it is."""
    look_up(config, dotted)
    first, _, rest = dotted.partition(".")
    return {**config, first: put(config[first], rest, value) if rest else value}


def leaves(node: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the leaves of nested dictionaries as (dotted key, value)."""
    pairs: list[tuple[str, Any]] = []
    for key, value in node.items():
        pairs += leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return pairs
