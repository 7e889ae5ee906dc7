"""Errors of Hydra and OmegaConf as one sentence with the nearest valid name."""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Iterator
from typing import Any

import yaml
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    GrammarParseError,
    InterpolationResolutionError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from metarun.cli.groups import SEVERAL
from metarun.cli.sources import NO_MIXTURE, ONLY
from metarun.cli.words import about_word
from metarun.errors import UserError, first_line, nearest
from metarun.wiring.option_files import options as shipped_options
from metarun.wiring.suggestions import for_key, for_option

JOB_NOTE = "The run folder is "
"""Start of the note on an exception that a job raised. The note marks a bug of metarun, which is not bad input."""

LOST = {
    "UncompletedJobError": "The logs below .submitit in the sweep's folder say why; the same command with resume=auto finishes the sweep.",
    "FailedJobError": "The logs below .submitit in the sweep's folder say why; the same command with resume=auto finishes the sweep.",
    "TerminatedWorkerError": "The same command with resume=auto and the sweep's folder finishes the sweep.",
}
"""The errors of launchers about a job that was killed, or that the system ended for want of memory, with the remedy."""
HAVING = {"task/source": "task=stream", "algo/update": "algo=gbml"}
"""The option of a group that has the group below it."""


def explain(error: BaseException) -> str | None:
    """Return the sentence about a mistake of the user, or None for a bug, which keeps its traceback."""
    if any(note.startswith(JOB_NOTE) for note in getattr(error, "__notes__", [])):
        return None
    for cause in causes(error, contexts=True):  # OmegaConf leaves the exception of a resolver in the context
        if isinstance(cause, UserError):
            return str(cause)
    chain = list(causes(error))
    typed = re.search(r"Could not override '([^']*)'", " ".join(str(cause) for cause in chain))
    for cause in reversed(chain):  # the innermost exception is the most specific
        if sentence := explain_one(cause, typed.group(1) if typed else None):
            return sentence
    return None


def causes(error: BaseException, *, contexts: bool = False) -> Iterator[BaseException]:
    """Yield an exception and the chain of its causes; with `contexts`, the context stands in for a missing cause."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or (current.__context__ if contexts else None)


def explain_one(error: BaseException, typed: str | None = None) -> str | None:
    """Return the sentence about one exception without its causes; `typed` is the key of the override that led to it."""
    match error:
        case MissingConfigException():
            return missing_option(error)
        case OverrideParseException():
            return not_an_override(error)
        case ConfigCompositionException():
            return not_composed(str(error))
        case ConfigKeyError() | ConfigAttributeError() if isinstance(error.parent_node, DictConfig):
            return unknown_key(error, typed or str(error.full_key))
        case MissingMandatoryValue() | InterpolationToMissingValueError():
            return f"'{error.full_key}' has no value; give one with {error.full_key}=VALUE."
        case OmegaConfBaseException() if sentence := not_resolved(error):
            return sentence
        case OmegaConfBaseException():
            return f"{error.full_key}: {one_line(first_line(error))}" if error.full_key else one_line(first_line(error))
        case Exception() if type(error).__name__ in LOST:
            return f"A job of the sweep ended without a result: {one_line(str(error))} {LOST[type(error).__name__]}"
        case RecursionError():
            return "The values or the defaults of the config files refer to one another in a circle; give one of them a value of its own."
        case yaml.YAMLError():
            return f"A config file is not YAML: {one_line(str(error))}"
        case HydraException():
            return one_line(str(error)).replace("Additional config directory", "--config-dir:")
        case OSError() if error.filename:
            return f"{error.filename} cannot be written ({error.strerror}); choose another run folder with hydra.run.dir=FOLDER."
        case ValueError() if raised_by_hydra(error):
            return one_line(str(error))
    return None


def missing_option(error: MissingConfigException) -> str:
    """Return the sentence about an option, or a root config, that has no file."""
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    known = error.options
    if known is None and group in SEVERAL:  # Hydra does not list the options where a list of them was typed
        known = shipped_options(group)
    if not group or known is None:
        return one_line(str(error).split("Config search path")[0])
    parent = re.match(r"In '([^']+)'", str(error))
    where = f"{parent[1]}.yaml: " if parent and parent[1] not in ("train", "eval", "predict", "hydra/config") else ""
    options = [name for name in known if not name.endswith("_")]
    close = nearest(option, options) if group.startswith("hydra/") else for_option(group, option, options)
    extra = "cluster" if (error.missing_cfg_file or "").rpartition("/")[2].startswith("submitit") else "sweep"
    advice = f" Plugins come with pip install 'metarun[{extra}]'." if group in ("hydra/launcher", "hydra/sweeper") else ""
    there = f" There are: {', '.join(options)}." if options else " There are none."
    return f"{where}{group} has no option '{option}'.{close}{there}{advice}"


def not_an_override(error: OverrideParseException) -> str:
    """Return the sentence about a word that Hydra's grammar does not allow."""
    key, equals, value = error.override.partition("=")
    if not equals:
        return about_word(str(error.override))
    if re.search(r"[=,(){}\[\]'\" ]", value):
        return f"'{error.override}' cannot be read; put a value with special characters in two pairs of quotes: '{key}=\"VALUE\"'."
    return f"'{error.override}' cannot be read; put the value in two pairs of quotes: '{key}=\"VALUE\"'."


def not_composed(message: str) -> str | None:
    """Return the sentence about overrides that do not fit the config; None where the cause is more specific."""
    if sweep := re.search(r"(?:Ambiguous value for argument|Sweep parameters) '([^']*)'", message):
        key, _, value = sweep[1].partition("=")
        return f"'{sweep[1]}' gives several values: add -m to run each of them, or write '{key}=[{value}]' for a list."
    if group := re.search(r"Could not override '([^']*)'\. No match in the defaults list", message):
        return f"'{group[1]}' is not a group of this command.{_where_it_is(group[1])}"
    text = re.sub(r"\n?(To append to your|See https|Set the environment)[^\n]*", "", message)
    return one_line(text) if text.strip() else None


def _where_it_is(group: str) -> str:
    """Return " Only task=stream has it, …" for a group below another one, such as task/source; an empty string for other groups."""
    outer, _, inner = group.partition("@")[0].partition("/")
    having = HAVING.get(f"{outer}/{inner}")
    return f" Only {having} has it; give {having} too, or leave {group} out." if having else ""


def not_resolved(error: OmegaConfBaseException) -> str | None:
    """Return the sentence about a value that refers to others with `${…}`, or has a type that a key of Hydra refuses; None for others."""
    text, key = first_line(error), error.full_key
    owner = f"{key} refers" if key else "A value of the config refers"
    if missing := re.search(r"Interpolation key '([^']*)' not found", text):
        if choice := re.fullmatch(r"hydra\.runtime\.choices\.(\w+)", missing[1]):
            return f"the config has no {choice[1]}; choose one with {choice[1]}=… (`metarun list` names them)."
        return f"{owner} to '{missing[1]}', which does not exist."
    if "Recursive interpolation" in text or "Interpolation to parent node" in text:
        return f"{owner} to itself; give it a value of its own."
    if variable := re.search(r"Environment variable '([^']*)' not found", text):
        return f"{owner} to the environment variable {variable[1]}, which is not set."
    if function := re.search(r"Unsupported interpolation type (\S+)", text):
        return f"{owner} to a function '{function[1]}', which does not exist."
    if isinstance(error, GrammarParseError):
        return f"{key or 'A value of the config'} has a reference ${{…}} that cannot be read; close each bracket."
    if isinstance(error, InterpolationResolutionError):
        return f"{owner} to a value that cannot be found."
    if isinstance(error, ValidationError) and key:
        return f"{key} has a value of another type than it needs; `metarun train --cfg hydra` shows the values of such keys."
    return None


def is_hydras(error: BaseException) -> bool:
    """Return whether Hydra failed before a job ran, so that a config file may be the reason; a UserError is no such failure."""
    chain = list(causes(error, contexts=True))
    return not any(isinstance(cause, UserError) or getattr(cause, "__notes__", []) for cause in chain)


def unknown_key(error: Any, key: str) -> str:
    """Return the sentence about a key that is not in the (closed) config."""
    if key == ONLY:
        return NO_MIXTURE
    root = error.parent_node._get_root()
    if key.startswith("hydra"):
        return f"There is no key '{key}'.{nearest_key(key, list(keys(root, hydra=True)))}"
    return f"There is no key '{key}'.{for_key(key, list(keys(root)), choices_of(root))}"


def choices_of(root: DictConfig) -> dict[str, Any]:
    """Return the option of each group, as far as Hydra has composed it."""
    choices = OmegaConf.select(root, "hydra.runtime.choices")
    return {str(group): option for group, option in choices.items()} if isinstance(choices, DictConfig) else {}


def keys(node: DictConfig, prefix: str = "", *, hydra: bool = False) -> Iterator[str]:
    """Yield the full dotted keys of a config, groups included, and with `hydra` also Hydra's own keys."""
    for name, child in node.items_ex(resolve=False):
        if prefix or hydra or name != "hydra":
            yield f"{prefix}{name!s}"
            if isinstance(child, DictConfig) and not (child._is_none() or child._is_missing() or child._is_interpolation()):
                yield from keys(child, f"{prefix}{name!s}.")


def nearest_key(key: str, known: list[str]) -> str:
    """Return " Did you mean 'task.shots'?" for task.shotss, tsak.shots, shots and shotss; an empty string where no key is close."""
    same_name = [full for full in known if full.rsplit(".", 1)[-1] == key]
    close = same_name or difflib.get_close_matches(key, known, n=1, cutoff=0.7)
    if not close:
        names = {full.rsplit(".", 1)[-1]: full for full in reversed(known)}
        close = [names[name] for name in difflib.get_close_matches(key.rsplit(".", 1)[-1], names, n=1, cutoff=0.6)]
    return f" Did you mean '{close[0]}'?" if close else ""


def raised_by_hydra(error: BaseException) -> bool:
    """Return whether Hydra itself raised an exception; it may also pass on the exception of a job in another process."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and "hydra" in frames[-1].filename.replace("\\", "/").split("/") and frames[-1].name != "return_value"


def one_line(text: str) -> str:
    """Return text on one line, with a full stop where it has none."""
    line = " ".join(text.split())
    return line if line.endswith((".", "!", "?")) else f"{line}."
