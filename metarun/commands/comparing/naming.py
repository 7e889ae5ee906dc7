"""Names of runs: the keys in which they differ, as the user typed or swept them. Runs that differ in their seed alone form one setting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metarun.commands.comparing.reading import leaves, look_up, mapping, sources_of, text_of
from metarun.commands.comparing.runs import Run
from metarun.errors import printable
from metarun.files.paths import names_path

BARE = ("algo", "task", "backbone", "experiment")
"""Groups whose option says by itself what it is: `maml` in place of `algo=maml`."""
UNNAMED = ("hydra", "resume", "save", "trust", "reproduce")
"""Keys and groups that say nothing about a run, even where they were typed."""
NO_CHANGE = ("device", "logger", "log_every", "options", "save_every", "save_minutes", "seed", "task.root", "task.seed", "trust")
"""Keys and groups in which a run may differ from its experiment without a change of the protocol."""
NO_INFLUENCE = ("device", "logger", "log_every", "save_every", "save_minutes")
"""Keys and groups that a name has only where nothing else differs."""
FREE = (*NO_CHANGE, "task.path", "init_from", "overlap", "reproduce", "resume")
"""Keys and groups in which two runs of one setting may differ. Each may start from a run of its own seed."""
SOURCES = "task.sources"
"""The key that lists the sources of a mixture, on the command line and in a name; a config has a group of this name."""
_OF_EVALUATION = ("split", "episodes", "seed", "best", "norm", "inner_steps")
"""Keys of `metarun eval` whose value in the name of an evaluation is that of the evaluation."""
_PATHS = ("init_from", "checkpoint")
_LONGEST = 60
"""Letters of the longest value that a name has; a list of classes is longer."""
_MOST = 3
"""Keys that nobody typed in a name, at most."""


class Setting(NamedTuple):
    """Runs of one setting: a single run, or several that differ in their seed alone. places: the positions of the runs."""

    name: str
    places: tuple[int, ...]


def names(runs: Sequence[Run]) -> list[str]:
    """Return a name for each run, such as "maml seed=1", from the keys whose values differ among the runs.

    The keys are those that the user typed for any of the runs; where a run does not say what was typed, all keys of the config. A name that
    several runs would have gets the other keys that differ, if they are few, or else the name of the run's folder. A single run has the
    name of its algorithm.
    """
    keys = differing(runs)
    found = [_named(run, keys) or run.algorithm for run in runs]
    for name in {name for name in found if found.count(name) > 1}:
        alike = [place for place, other in enumerate(found) if other == name]
        more = [key for key in config_differences([runs[place] for place in alike]) if key not in keys]
        for place in alike if len(more) <= _MOST else ():
            found[place] = " ".join(filter(None, (name, _named(runs[place], more))))
    return [f"{name} ({printable(_folder(run, runs))})" if found.count(name) > 1 else name for name, run in zip(found, runs, strict=True)]


def settings(runs: Sequence[Run]) -> list[Setting]:
    """Return the settings of the runs, in the order of their first runs. Two runs of one seed and one setting have rows of their own."""
    own, keys = names(runs), [key for key in differing(runs) if key != "seed"]
    alike: dict[Any, list[int]] = {}
    for place, run in enumerate(runs):
        alike.setdefault(setting_of(run), []).append(place)
    found: list[Setting] = []
    for places in alike.values():
        seeds = [runs[place].seed for place in places]
        if len(places) > 1 and None not in seeds and len(set(seeds)) == len(seeds):
            found.append(Setting(_named(runs[places[0]], keys) or runs[places[0]].algorithm, tuple(places)))
        else:
            found += [Setting(own[place], (place,)) for place in places]
    taken = [each.name for each in found]
    return [each._replace(name=own[each.places[0]]) if taken.count(each.name) > 1 else each for each in found]


def setting_of(run: Run) -> tuple[Any, ...]:
    """Return a value that is equal for two runs of one setting: they differ in the seed, and in keys without influence, at most."""
    config = sorted((key, text_of(value)) for key, value in leaves(run.config).items() if not is_free(key))
    asked = () if run.evaluation is None else tuple(run.evaluation.settings.items())
    return (asked, *(run.option(group) for group in BARE[:3]), *config)


def differing(runs: Sequence[Run]) -> list[str]:
    """Return the keys of the names, in the order in which they were typed; the seed comes last."""
    typed = [key for key in dict.fromkeys(_typed(key) for run in runs for key in run.overrides) if not _begins(key, UNNAMED)]
    keys = [key for key in typed if _differ(runs, key)]
    if "checkpoint" in keys or not all(run.overrides for run in runs):  # an evaluation has typed a run, and the run has typed the rest
        keys += [key for key in config_differences(runs) if key not in keys]
        keys = [key for key in keys if key != "checkpoint"] or keys
    keys = [key for key in keys if not _begins(key, NO_INFLUENCE)] or keys
    return [key for key in keys if key != "seed"] + [key for key in keys if key == "seed"]


def _typed(key: str) -> str:
    """Return a key as the user knows it: the list `task.sources` becomes other words for Hydra (`metarun.cli.sources`)."""
    parts = key.split(".")
    inside = parts[:2] == ["task", "sources"] and len(parts) == 3  # a source that was set to null
    return SOURCES if inside or key == "task.only" or parts[:2] == ["task", "task"] else key


def config_differences(runs: Sequence[Run]) -> list[str]:
    """Return the groups whose options differ, and the keys whose values differ otherwise.

    Left out: keys of a group with another option, keys of the sources of another mixture, keys that follow from the recipe of another
    algorithm, and keys without influence.
    """
    groups = dict.fromkeys(str(group) for run in runs for group in mapping(run.config.get("options")))
    own = [group for group in groups if group.split("/")[0] not in ("device", "logger") and "@" not in group]
    options = [key for key in (*own, SOURCES) if _differ(runs, key)]
    recipes = {name for run in runs for name in mapping(look_up(run.config, "algo.recipe"))} if "algo" in options else set()
    keys = dict.fromkeys(key for run in runs for key in leaves(run.config))
    kept = [
        key
        for key in keys
        if (key == "seed" or not is_free(key))
        and not _begins(key, (*options, "algo.recipe"))
        and not names_path(key)
        and key.rpartition(".")[2] not in recipes
        and _differ(runs, key)
        and all(len(value_of(run, key)) <= _LONGEST for run in runs)
    ]
    return options + kept


def value_of(run: Run, key: str) -> str:
    """Return the value of a dotted key in a run as one types it; of a group, its option. "" where the run has no such key."""
    options = mapping(run.config.get("options"))
    if run.evaluation is not None and key in run.evaluation.settings and key in _OF_EVALUATION:
        return run.evaluation.settings[key]
    if key in options:
        return text_of(options[key])
    if key == SOURCES:
        return text_of(names) if (names := sources_of(mapping(run.config.get("task")))) else ""
    value = look_up(run.config, key)
    return run.overrides.get(key, "") if value is None and key not in leaves(run.config) else text_of(value)


def may_name(text: str, run: Run) -> bool:
    """Return whether some table may give a run this name; False where a word of the text is neither in the run's keys nor in its path."""
    typed = {**mapping(run.config.get("options")), SOURCES: None, **leaves(run.config), **run.overrides}
    words = printable(" ".join([run.algorithm, str(run.folder.absolute()), *(f"{key}={value_of(run, str(key))}" for key in typed)]))
    return all(word.strip("()") in words for word in text.split())


def _named(run: Run, keys: Iterable[str]) -> str:
    return printable(" ".join(text for key in keys if (text := _part(run, key))))


def _part(run: Run, key: str) -> str:
    value = value_of(run, key)
    if not value or (key == "experiment" and value == "null"):
        return ""
    if key in _PATHS or names_path(key):
        value = _run_name(value)
    bare = key in BARE and value != "null"
    return value if bare else f"{key}={value[:_LONGEST]}"


def _run_name(path: str) -> str:
    """Return the name of the run that a path of a checkpoint names, or the last part of another path."""
    parts = [part for part in Path(path).parts if part != "checkpoints" and not part.endswith(".pt")]
    return parts[-1] if parts else path


def _differ(runs: Sequence[Run], key: str) -> bool:
    return len({value_of(run, key) for run in runs}) > 1


def is_free(key: str) -> bool:
    """Return whether runs of one setting may differ in a key; the sources inside of a mixture have seeds that follow the run's."""
    return _begins(key, FREE) or (key.startswith("task.") and key.endswith(".seed"))


def _begins(key: str, groups: Iterable[str]) -> bool:
    return any(key == group or key.startswith((f"{group}.", f"{group}/")) for group in groups)


def _folder(run: Run, runs: Sequence[Run]) -> str:
    """Return the end of a run's path that no other run has."""
    parts = [other.folder.absolute().parts for other in runs]
    own = run.folder.absolute().parts
    for length in range(1, len(own) + 1):
        if sum(other[-length:] == own[-length:] for other in parts) == 1:
            return str(Path(*own[-length:]))
    return str(run.folder)
