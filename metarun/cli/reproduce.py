"""`metarun reproduce EXPERIMENT`: train, evaluate under the experiment's protocol, and set the score beside the published one.

What was published, where, and how the protocols differ is data of the experiment's file, under its key `reproduce`.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from metarun.cli.arguments import split
from metarun.errors import UserError

USAGE = "usage: metarun reproduce EXPERIMENT [checkpoint=RUN] [key=value of metarun train ...] [--config-dir DIR]"
FOREIGN = ("experiment=", "resume=", "hydra.run.", "hydra.sweep.", "hydra.output_subdir=")
"""Overrides that would train something else, or elsewhere."""
FREE = ("device", "logger", "log_every", "options", "reproduce", "resume", "save_every", "seed", "task.root", "task.seed", "trust")
"""Keys and groups by which a run may differ from its experiment and still follow it."""


@dataclass(frozen=True)
class Claim:
    """What an experiment says of the published score.

    eval: overrides of `metarun eval`, its protocol. published, ci95: the score and half its interval, in the metric's unit (accuracy in
    [0, 1]); None where nothing was published, or no interval. source: where. recalled: whether that was not read again for this project.
    tolerance: how much worse than published still counts as reproduced. differences: of the protocols, a sentence each.
    """

    eval: Mapping[str, Any] = field(default_factory=dict)
    metric: str = "accuracy"
    published: float | None = None
    ci95: float | None = None
    source: str = ""
    recalled: bool = False
    tolerance: float = 0.01
    differences: tuple[str, ...] = ()


def main(arguments: list[str]) -> int:
    """Run the command; 1 where the score falls short of the published one by more than the tolerance."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, flush=True)
        return 0
    name, run, overrides, flags = parse(arguments)
    config = config_of(name, flags)
    experiment = claim_of(name, config.get("reproduce") or {})
    from metarun.cli import jobs
    from metarun.cli.folders import RunFolders
    from metarun.records import checkpoint

    folders = RunFolders()
    if run is None:
        jobs.run("train", [f"experiment={name}", *overrides, *flags], folders)
        run = str(folders.last)
        if not (Path(run) / "report.json").is_file():  # interrupted, and has said how to go on
            print(f"then: metarun reproduce {name} checkpoint={run}", flush=True)
            return 130
    path = checkpoint.resolve(run)
    stored = checkpoint.load(path)
    check_run(run, name, stored.config)
    last = path.with_name(checkpoint.LAST)
    done = checkpoint.load(last).step if last.is_file() else None
    trust = [word for word in overrides if word.startswith("trust=")]
    jobs.run("eval", [f"checkpoint={run}", *protocol(experiment.eval), *trust], folders)
    file = folders.last / "report.json"
    report = json.loads(file.read_text(encoding="utf-8"))
    result = compare(experiment, report, changes(config, stored.config, done))
    file.write_text(json.dumps({**report, "reproduction": result}, indent=2) + "\n", encoding="utf-8")
    print("\n".join(lines(name, experiment, result)), flush=True)
    return 1 if result["reproduced"] is False else 0


def parse(arguments: list[str]) -> tuple[str, str | None, list[str], list[str]]:
    """Return the experiment's name, the run of `checkpoint=`, the overrides for its training, and the flags."""
    flags, words = split(arguments)
    if unsuited := [flag for flag in flags if flag.startswith("-") and flag.partition("=")[0] not in ("--config-dir", "-cd")]:
        raise UserError(f"metarun reproduce takes no {unsuited[0]}.\n{USAGE}")
    names = [word for word in words if "=" not in word and not word.startswith("~")]
    if len(names) != 1:
        raise UserError(f"metarun reproduce takes one experiment, here {' and '.join(names) or 'none'}.\n{USAGE}")
    rest = [word for word in words if word not in names and not word.startswith("checkpoint=")]
    if foreign := [word for word in rest if word.lstrip("+~").startswith(FOREIGN)]:
        raise UserError(f"metarun reproduce takes no {foreign[0]}; for another run, `metarun train`, and then checkpoint=RUN.")
    runs = [word.removeprefix("checkpoint=") for word in words if word.startswith("checkpoint=")]
    if len(runs) > 1 or (runs and runs[0].startswith("[")):
        raise UserError("checkpoint= takes one run; `metarun eval` scores several as an ensemble.")
    if runs and (training := [word for word in rest if not word.startswith("trust=")]):
        raise UserError(f"checkpoint= takes a run as it is, and {training[0]} would change its training; leave one of them out.")
    return names[0], runs[0] if runs else None, rest, flags


def config_of(name: str, flags: list[str]) -> dict[str, Any]:
    """Return the config that `metarun train` composes for the experiment; UserError where there is none of that name."""
    from metarun.cli import jobs

    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        jobs.run("train", [f"experiment='{name}'", *flags, "--cfg", "job", "--resolve"])  # in quotes: null is no experiment
    config: dict[str, Any] = yaml.safe_load(shown.getvalue())
    return config


def claim_of(name: str, content: Mapping[str, Any]) -> Claim:
    """Return the key `reproduce` of an experiment; UserError for a key or a value that cannot be read."""
    known = [each.name for each in fields(Claim)]
    if unknown := set(content) - set(known):
        raise UserError(f"experiment={name}: `reproduce:` has no key '{unknown.pop()}'; it has {', '.join(known)}.")
    for key in ("published", "ci95", "tolerance"):
        value = content.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise UserError(f"experiment={name}: reproduce.{key}={value} should be a number, and an accuracy one in [0, 1].")
    return Claim(**{**content, "differences": tuple(content.get("differences", ()))})


def check_run(run: str, name: str, config: Mapping[str, Any]) -> None:
    """Raise UserError where the run is not of this experiment."""
    trained = config.get("options", {}).get("experiment")
    if trained != name:
        of = f"of experiment={trained}" if trained else "of no experiment"
        raise UserError(f"{run} is a run {of}, so it cannot reproduce {name}; `metarun eval` scores it.")


def protocol(overrides: Mapping[str, Any]) -> list[str]:
    """Return the overrides of `metarun eval` as words, nested keys with dots."""
    from metarun.commands.overrides import leaves

    return [f"{key}={json.dumps(value)}" for key, value in leaves(overrides)]


def changes(config: Mapping[str, Any], trained: Mapping[str, Any], done: int | None) -> list[str]:
    """Return by what a run differs from its experiment, "steps=20 instead of 7200".

    config: the experiment's. trained: the run's, in which the class split that was drawn (null before) does not count. done: the steps of
    its last checkpoint, None where that is not known.
    """
    from metarun.commands.overrides import leaves

    was, now = dict(leaves(config)), dict(leaves(trained))
    replaced = [group for group in config if was.get(target := f"{group}._target_") != now.get(target)]  # its other keys say nothing more
    said = []
    for key, value in was.items():
        group = key.split(".")[0]
        free = key in FREE or group in FREE or (group in replaced and key != f"{group}._target_")
        drawn = value is None and not isinstance(now.get(key), (bool, int, float, str))
        if not free and not drawn and now.get(key) != value:
            said.append(f"{key}={now.get(key)} instead of {value}")
    if done is not None and done < trained["steps"]:
        said.append(f"stopped after {done} of {trained['steps']} steps")
    return said


def compare(experiment: Claim, report: Mapping[str, Any], changed: list[str]) -> dict[str, Any]:
    """Return our score beside the published one; `reproduced` is None where nothing was published.

    changed: by what the run differs from the experiment.
    """
    mean, reproduced = report["mean"], None
    if experiment.published is not None:
        if report["metric"] != experiment.metric:
            raise UserError(f"the experiment's published score is of {experiment.metric}, and this run's is of {report['metric']}.")
        sign = 1.0 if experiment.metric == "accuracy" else -1.0
        reproduced = mean is not None and sign * (mean - experiment.published) >= -experiment.tolerance
    return {
        "metric": report["metric"],
        "measured": mean,
        "measured_ci95": report["ci95"],
        "published": experiment.published,
        "published_ci95": experiment.ci95,
        "source": experiment.source,
        "recalled": experiment.recalled,
        "tolerance": experiment.tolerance,
        "reproduced": reproduced,
        "differences": list(experiment.differences),
        "changed": changed,
    }


def lines(name: str, experiment: Claim, result: Mapping[str, Any]) -> list[str]:
    """Return the comparison for a person."""
    said = [f"{name}: measured {score(result['metric'], result['measured'], result['measured_ci95'])}"]
    if experiment.published is None:
        said.append(f"published: nothing to compare with{f' ({experiment.source})' if experiment.source else ''}")
    else:
        recalled = ", as recalled and not read again" if experiment.recalled else ""
        said.append(f"published {score(experiment.metric, experiment.published, experiment.ci95)} ({experiment.source}{recalled})")
        verdict = "reproduced" if result["reproduced"] else "NOT reproduced"
        said.append(f"{verdict}: it may fall short by {score(experiment.metric, experiment.tolerance, None)}")
    said += [f"  known difference: {difference}" for difference in experiment.differences]
    said += [f"  protocol changed: {change}" for change in result["changed"]]
    return said


def score(metric: str, value: float | None, ci95: float | None) -> str:
    """Return a score with its interval: "98.12 % ± 0.23", or in the unit of an error."""
    if value is None:
        return "no finite score"
    if metric == "accuracy":
        return f"{100 * value:.2f} %" + ("" if ci95 is None else f" ± {100 * ci95:.2f}")
    return f"{metric} {value:.3f}" + ("" if ci95 is None else f" ± {ci95:.3f}")
