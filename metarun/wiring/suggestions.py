"""What a user may have meant by a key or an option that does not exist, as a sentence. This module imports no torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from importlib.resources.abc import Traversable

from metarun.wiring.option_files import content_of, keys_of, options, shipped, text_of
from metarun.wiring.synonyms import KEYS, OPTIONS, TIMM, TORCH, plain

GROUPS = ("algo", "task", "backbone", "optimizer", "device", "logger", "algo/update", "task/source")
COMMANDS = ("train", "eval", "predict")
FROM_CHECKPOINT = ("algo", "task", "backbone")
"""Groups of which `metarun eval` takes every key, since their config is the checkpoint's."""
ALWAYS = ("hydra.run.dir",)
MOST = 3
"""Names in one answer."""


def for_key(key: str, known: Sequence[str], chosen: Mapping[str, object] | None = None, roots: Sequence[Traversable] = ()) -> str:
    """Return a sentence about an unknown key, with a space in front; an empty string where nothing is close.

    known: the dotted keys of the config, groups included. chosen: group -> its option. roots: config folders besides the shipped one.
    """
    word, command = key.rpartition(".")[2], _command_of(known)
    if command != "predict" and (owners := _owners(key, roots)):
        return _belongs(key, key, owners, chosen or {})
    if meant := _meant(key, known, command):
        return did_you_mean(meant)
    if (other := _other_command(key, command)) is not None:
        return f" It is a key of `metarun {other}`."
    near = _near(key, known)
    if near and difflib.SequenceMatcher(None, word, near.rpartition(".")[2]).ratio() >= 0.8:
        return did_you_mean([near])
    for full in _elsewhere(key, roots):
        if command == "predict":
            return f" `metarun predict` takes '{full}' from the run."
        return _belongs(full, key, _owners(full, roots), chosen or {})
    return did_you_mean([near]) if near else ""


def for_option(group: str, option: str, known: Sequence[str]) -> str:
    """Return a sentence about an unknown option, with a space in front; an empty string where nothing is close. known: the options."""
    word = plain(option)
    bare = {name.replace("_", ""): name for name in known}
    meant = [bare[word.replace("_", "")]] if word.replace("_", "") in bare else []
    meant += [name for name in OPTIONS.get((group, word), ()) if name in known and name not in meant]
    more = []
    if group == "backbone" and TIMM.match(word):
        more.append(f"backbone=timm backbone.name={word}")
    if group == "optimizer" and word in TORCH:
        more.append("optimizer={} optimizer.name={}".format(*TORCH[word]))
    if group == "device" and word.startswith("cuda:"):
        more.append(f"device=cuda device.name={word}")
    if more:
        return did_you_mean([*more, *(f"{group}={name}" for name in meant)])
    begin = [name for name in known if len(word) > 2 and (name.startswith(word) or word.startswith(name))]
    return did_you_mean(meant or begin or difflib.get_close_matches(word, known, n=1, cutoff=0.6))


def did_you_mean(names: Sequence[str]) -> str:
    """Return " Did you mean 'a' or 'b'?"; an empty string without names."""
    quoted = [f"'{name}'" for name in names[:MOST]]
    if not quoted:
        return ""
    return f" Did you mean {' or '.join(quoted) if len(quoted) < 3 else f'{quoted[0]}, {quoted[1]} or {quoted[2]}'}?"


def _meant(key: str, known: Sequence[str], command: str | None) -> list[str]:
    """Return the keys with the same last name, or with a name that others call so; those of the same group first."""
    group, _, word = key.rpartition(".")
    same = [full for full in known if full.rpartition(".")[2] == word and ".recipe." not in full]
    least = min((full.count(".") for full in same), default=0)
    named = [target for target in KEYS.get(plain(word), ()) if _has(target, known, command)]
    found = dict.fromkeys([*(full for full in same if full.count(".") == least), *named])
    return sorted((full for full in found if full != key and full.partition("=")[0] != group), key=lambda full: _group(full) != group)


def _has(target: str, known: Sequence[str], command: str | None) -> bool:
    """Return whether a command has a key; `metarun eval` reads the keys of some groups from the checkpoint."""
    if target in ALWAYS or target.partition("=")[0] in known:
        return True
    return command == "eval" and target.split(".")[0] in FROM_CHECKPOINT


def _group(key: str) -> str:
    return key.rpartition(".")[0]


def _near(key: str, known: Sequence[str]) -> str | None:
    """Return the known key whose spelling is closest, as a whole or in its last name."""
    if close := difflib.get_close_matches(key, known, n=1, cutoff=0.7):
        return close[0]
    names = {full.rpartition(".")[2]: full for full in reversed(known) if ".recipe." not in full}
    close = difflib.get_close_matches(key.rpartition(".")[2], names, n=1, cutoff=0.6)
    return names[close[0]] if close else None


def _command_of(known: Sequence[str]) -> str | None:
    """Return the command whose own keys are all known."""
    return next((command for command in COMMANDS if set(_own_keys(command)) <= set(known)), None)


def _own_keys(command: str) -> list[str]:
    content = content_of(text_of(command, [shipped()]) or "")
    return [key for key in content if key != "hydra"]


def _other_command(key: str, own: str | None) -> str | None:
    return next((command for command in COMMANDS if own is not None and command != own and key in _own_keys(command)), None)


def _owners(key: str, roots: Sequence[Traversable]) -> list[str]:
    """Return the choices that have a key, such as "algo=matching" for algo.fce."""
    owners: list[str] = []
    for group in GROUPS:
        prefix = f"{group.replace('/', '.')}."
        if key.startswith(prefix) and not key.startswith(f"{prefix}recipe."):
            owners += [f"{group}={name}" for name in options(group, roots) if key.removeprefix(prefix) in keys_of(f"{group}/{name}", roots)]
    return owners


def _elsewhere(key: str, roots: Sequence[Traversable]) -> list[str]:
    """Return the full keys with the last name of `key` that some option has: those of its group first, then the shortest."""
    word, first = key.rpartition(".")[2], key.partition(".")[0]
    found = {
        f"{group.replace('/', '.')}.{name}"
        for group in GROUPS
        for option in options(group, roots)
        for name in keys_of(f"{group}/{option}", roots)
        if name.rpartition(".")[2] == word and not name.startswith("recipe.")
    }
    return sorted(found, key=lambda full: (full.partition(".")[0] != first, full.count("."), full))


def _belongs(key: str, typed: str, owners: Sequence[str], chosen: Mapping[str, object]) -> str:
    """Return a sentence about a key that other options have. typed: the key that the user gave."""
    group = owners[0].partition("=")[0]
    names = [owner.partition("=")[2] for owner in owners if owner.startswith(f"{group}=")]
    listed = ", ".join(names[:MOST]) + (f" and {len(names) - MOST} more" if len(names) > MOST else "")
    here = f"; this run has {group}={chosen[group]}" if chosen.get(group) else ""
    return f" {'It' if key == typed else repr(key)} belongs to {group}={listed}{here}."
