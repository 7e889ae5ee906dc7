"""A command's keys with their values and explanations, as one command line composes them.

Each file of the config contributes its keys under its package: `algo/maml` under `algo`, `task/source/glyphs` under `task.source`, and an
experiment under no package. So the comment beside a key explains the composed key of the same name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metarun.cli import composing as composing  # registers the resolvers of the config
from metarun.cli.arguments import prepare, split
from metarun.cli.config_files import check_chosen
from metarun.cli.groups import check_options
from metarun.cli.help.comments import comments_of, header_of
from metarun.cli.hydra_errors import explain
from metarun.errors import UserError
from metarun.files.paths import expanded, quoted
from metarun.wiring.option_files import content_of, leaves, text_of

FILES = ("_target_", "_partial_", "_convert_", "_args_", "_recursive_")
"""Keys of Hydra's in an option's file; no user changes them."""


class Key(NamedTuple):
    """A key of a config. value: resolved; `???` where one must be given. origin: where the value comes from, or an empty string."""

    name: str
    value: Any
    origin: str
    words: str


class Section(NamedTuple):
    """The keys of one option. title: such as "algo=maml"; an empty string for the keys of the command itself. target: its `_target_`."""

    title: str
    target: str
    words: str
    keys: list[Key]


class Part(NamedTuple):
    """A file of a composed config. name: "algo/maml". package: "algo", or an empty string for the whole config."""

    name: str
    package: str
    text: str


class Composed(NamedTuple):
    """A config before its values are resolved. choices: group -> option. parts: in the order in which they are merged."""

    config: DictConfig
    choices: dict[str, Any]
    parts: list[Part]


def composed(command: str, arguments: Sequence[str]) -> Composed:
    """Compose the config of a command line and find the files it consists of. Raises UserError for what Hydra refuses."""
    words = prepare(command, list(arguments))
    check_options(words)
    check_chosen(words)
    flags, overrides = split(words)
    if several := next((word for word in overrides if re.match(r"\+*[\w/@]+=[\w/-]+(,[\w/-]+)+$", word)), None):
        group, _, names = several.partition("=")
        first, second, *_ = names.split(",")
        raise UserError(f"--help explains one choice at a time; give {group}={first} or {group}={second}.")
    overrides = _with_folder(overrides, flags)
    try:
        with _search_path(flags):
            name = _value(flags, "--config-name", "-cn") or command
            config = compose(name, overrides=overrides, return_hydra_config=True)
            loader = GlobalHydra.instance().config_loader()
            defaults = loader.compute_defaults_list(name, overrides, RunMode.RUN).defaults
            roots = [element.path for element in loader.get_search_path().get_path()]
    except Exception as error:
        if (sentence := explain(error)) is None:
            raise
        raise UserError(sentence) from error
    places = [place for root in [*roots, *config.hydra.searchpath] if (place := _folder(str(root))) is not None]
    parts = [
        Part(each.config_path, each.package or "", text)
        for each in defaults
        if not str(each.config_path).startswith("hydra/") and (text := text_of(str(each.config_path), places)) is not None
    ]
    return Composed(config, dict(config.hydra.runtime.choices), parts)


@contextmanager
def _search_path(flags: list[str]) -> Iterator[None]:
    """Let Hydra compose from metarun's files, or from the folder of `--config-path`; put back the caller's Hydra."""
    path = _value(flags, "--config-path", "-cp")
    before, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        if path is None or path.startswith("pkg://"):
            initialize_config_module((path or "metarun.configs").removeprefix("pkg://").replace("/", "."), version_base="1.3")
        else:
            initialize_config_dir(str(Path(path).absolute()), version_base="1.3")
        yield
    finally:
        GlobalHydra.instance().hydra = before


def _with_folder(overrides: list[str], flags: list[str]) -> list[str]:
    """Return the overrides with the folder of `--config-dir` in `hydra.searchpath`, which Hydra's function `compose` reads."""
    folder = _value(flags, "--config-dir", "-cd")
    if folder is None:
        return overrides
    if not expanded(folder).is_dir():
        raise UserError(f"--config-dir: there is no folder '{folder}'.")
    place = quoted(str(expanded(folder).absolute()))
    if any(word.startswith("hydra.searchpath=[") for word in overrides):
        return [word.replace("=[", f"=[{place},", 1) if word.startswith("hydra.searchpath=[") else word for word in overrides]
    return [*overrides, f"hydra.searchpath=[{place}]"]


def _value(flags: list[str], *names: str) -> str | None:
    for place, flag in enumerate(flags):
        name, equals, value = flag.partition("=")
        if name in names:
            return value if equals else next(iter(flags[place + 1 :]), None)
    return None


def _folder(root: str) -> Traversable | None:
    scheme, _, path = root.rpartition("://")
    if scheme == "pkg":
        try:
            return files(path.replace("/", "."))
        except (ImportError, TypeError):
            return None
    return Path(path) if scheme in ("", "file") else None


def sections(found: Composed) -> dict[str, Section]:
    """Return package -> section, for the command itself (the package "") and for each group that has an option."""
    content = OmegaConf.to_container(found.config, resolve=False)
    assert isinstance(content, dict)
    raw = leaves({str(key): value for key, value in content.items() if key != "hydra"})
    titles = _titles(found)
    grouped: dict[str, list[Key]] = {package: [] for package in ["", *titles]}
    explanations = explanations_of(found.parts)
    for name, value in raw.items():
        if name.rpartition(".")[2] not in FILES:
            package = max((each for each in grouped if name.startswith(f"{each}.")), key=len, default="")
            grouped[package].append(_key(found, name, value, raw, explanations))
    return {package: _section(found, package, titles.get(package, ""), keys, raw) for package, keys in grouped.items()}


def _titles(found: Composed) -> dict[str, str]:
    """Return package -> words that choose it, such as "task.source" -> "task/source=glyphs"; of two, the group of its own.

    Hydra does not count a list of options among the choices.
    """
    titles: dict[str, str] = {}
    for choice, option in found.choices.items():
        group, at, package = choice.partition("@")
        package = package if at else group.replace("/", ".")
        if not choice.startswith("hydra/") and option is not None and (not at or package not in titles):
            titles[package] = f"{choice}={option}"
    for package in {part.package: None for part in found.parts if part.package and part.package not in titles}:
        names = [part.name.rpartition("/") for part in found.parts if part.package == package]
        titles[package] = f"{names[0][0]}=[{','.join(name for _, _, name in names)}]"
    return {package: title for package, title in titles.items() if OmegaConf.select(found.config, package) is not None}


def _section(found: Composed, package: str, title: str, keys: list[Key], raw: Mapping[str, Any]) -> Section:
    headers = [header_of(part.text) for part in found.parts if part.package == package]
    if not package:  # the first of these files is the command's own; experiments come after it
        headers = headers[:1]
    words = f"{headers[-1].sentence}." if headers and headers[-1].text else ""
    return Section(title, str(raw.get(f"{package}._target_", "")), words, keys)


def _key(found: Composed, name: str, value: Any, raw: Mapping[str, Any], explanations: Mapping[str, str]) -> Key:
    resolved = _resolved(found.config, name, value)
    words = explanations.get(name, "")
    if name.startswith("algo.recipe."):
        words = _of_recipe(name, raw)
    return Key(name, resolved, "must be given" if resolved == "???" else _origin(found, name, value, raw), words)


def _resolved(config: DictConfig, name: str, value: Any) -> Any:
    try:
        selected = OmegaConf.select(config, name)
    except OmegaConfBaseException:
        return value
    if selected is None:
        return value if value == "???" else None
    return OmegaConf.to_container(selected, resolve=True) if OmegaConf.is_config(selected) else selected


def _of_recipe(name: str, raw: Mapping[str, Any]) -> str:
    """Return what an entry of `algo.recipe` is for: the keys that refer to it."""
    readers = [key for key, value in raw.items() if name in references(value)]
    return f"default of {' and '.join(readers)}" if readers else "a default that no key of this choice reads"


def references(value: Any) -> list[str]:
    """Return the keys to which a value refers with `${…}`, the first choice first."""
    found = re.findall(r"\$\{(?:oc\.select:)?(\.*\w[\w.]*)\s*[,}]", value) if isinstance(value, str) else []
    return [str(key) for key in found]


def _origin(found: Composed, name: str, value: Any, raw: Mapping[str, Any]) -> str:
    """Return "from algo.recipe.lr" for a value that refers to another, or "set by experiment=smoke"; an empty string for other values."""
    for reference in references(value):
        key = _absolute(reference, name)
        if key in raw:
            return f"from {key}"
    if isinstance(value, str) and (variable := re.search(r"\$\{oc\.env:(\w+)", value)):
        return f"with the environment variable {variable[1]}"
    typed = {override.lstrip("+").partition("=")[0] for override in found.config.hydra.overrides.task}
    setters = [part.name for part in _presets(found.parts) if name in leaves(content_of(part.text))]
    if not setters or name in typed:
        return ""
    return "set by the experiment" if setters[-1].startswith("experiment/") else f"set by {_choice(setters[-1])}"


def _absolute(reference: str, name: str) -> str:
    """Return a key that a reference such as `.shots` or `..ways` names, from the place of the key `name`."""
    dots = len(reference) - len(reference.lstrip("."))
    if not dots:
        return reference
    parents = name.split(".")[:-dots]
    return ".".join([*parents, reference[dots:]])


def explanations_of(parts: Sequence[Part]) -> dict[str, str]:
    """Return the explanation of each composed key: the comment of the last file of its group, then those of experiments."""
    words: dict[str, str] = {}
    for part in parts:
        preset = part in _presets(parts)
        for key, comment in comments_of(part.text).items():
            name = f"{part.package}.{key}".lstrip(".")
            words[name] = f"{words[name]} ({_choice(part.name)}: {comment})" if preset and name in words else comment
    return words


def _presets(parts: Sequence[Part]) -> list[Part]:
    """Return the files that set keys of the whole config, such as experiments; the first file is the command's own."""
    return [part for part in parts if not part.package][1:]


def _choice(name: str) -> str:
    return "=".join(name.rsplit("/", 1))
