"""`metarun reproduce EXPERIMENT`: train, evaluate under the experiment's protocol, and compare with the published score.

The experiment's file states the published score, its source and the differences of protocol, under the key `reproduce`.
"""

from __future__ import annotations

import contextlib
import io
import json
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from metarun.cli.arguments import split
from metarun.cli.paths import typed_paths
from metarun.cli.plain_words import printed_help
from metarun.commands.keys import Claim, claim_of
from metarun.errors import Stopped, UserError, printable
from metarun.files.commands import command
from metarun.files.paths import quoted, word

if TYPE_CHECKING:
    from metarun.cli.folders import RunFolders

USAGE = (
    "usage: metarun reproduce EXPERIMENT [seeds=N] [checkpoint=RUN | checkpoint=[RUN,RUN,...]] [key=value of metarun train ...] "
    "[--config-dir DIR]"
)
HELP = f"""{USAGE}

Train an experiment, score it under the experiment's protocol, and compare the score with the published one. The exit code is 1 where the
score is worse by more than the tolerance, or where too many tasks diverge. `metarun list experiment EXPERIMENT` shows the protocol.

  EXPERIMENT    the name of an experiment, such as omniglot_5w1s_maml; `metarun list experiment` names them
  seeds         number of runs to train, at least 2, with the seeds 0, 1, …; the result has an interval over the runs
  checkpoint    a trained run to score, or a list of them, instead of a training
  key=value     changes of the training, as in `metarun train`; the result counts them as differences
  --config-dir  a folder with your own experiments
"""
FOREIGN = ("experiment=", "resume=", "hydra.run.", "hydra.sweep.", "hydra.output_subdir=")
"""Overrides that would train another experiment, or write to another folder."""


class Asked(NamedTuple):
    """The words of the command line.

    runs: of `checkpoint=`, [] where they are to be trained. seeds: the number of runs to train, under the seeds 0, 1, …; None for one run
    under the experiment's seed. overrides: for the training. flags: of the config folder.
    """

    name: str
    runs: list[str]
    seeds: int | None
    overrides: list[str]
    flags: list[str]


def main(arguments: list[str]) -> int:
    """Run the command; return 1 if the score is worse than the published one by more than the tolerance, or too many tasks diverged."""
    if printed_help(arguments or ["--help"], HELP):
        return 0
    asked = parse(arguments)
    config = config_of(asked.name, asked.flags)
    experiment = claim_of(config.get("reproduce") or {})
    from metarun.cli import jobs
    from metarun.cli.folders import RunFolders
    from metarun.commands.overrides import with_absolute_places
    from metarun.commands.report_files import write_json
    from metarun.records import checkpoint
    from metarun.wiring.stored import check_form

    folders = RunFolders()
    runs = asked.runs or train_runs(asked, folders)
    differences: list[str] = []
    for run in runs:
        path, stored, _ = checkpoint.find(run)
        check_form(stored.config)
        check_run(run, asked.name, stored.config)
        last = path.with_name(checkpoint.LAST)
        done = checkpoint.find(last).checkpoint.step if last.is_file() else None
        found = changes(with_absolute_places(config), stored.config, done)
        differences += [change for change in found if change not in differences]
    trust = [word for word in asked.overrides if word.startswith("trust=")]
    scored = f"checkpoint={quoted(runs[0])}" if len(runs) == 1 else f"checkpoint=[{','.join(map(quoted, runs))}]"
    jobs.run("eval", [scored, *([] if len(runs) == 1 else ["ensemble=false"]), *protocol(experiment.eval), *trust], folders)
    file = folders.last / "report.json"
    report = json.loads(file.read_text(encoding="utf-8"))
    result = compare(experiment, report, differences)
    write_json(file, {**report, "reproduction": result})
    print("\n".join(map(printable, lines(asked.name, experiment, result))), flush=True)
    return 1 if result["reproduced"] is False else 0


def train_runs(asked: Asked, folders: RunFolders) -> list[str]:
    """Train the runs and return their folders. Raises Stopped where a signal stopped a training, after a hint on how to go on."""
    from metarun.cli import jobs

    runs: list[str] = []
    seeds = [[]] if asked.seeds is None else [[f"seed={seed}"] for seed in range(asked.seeds)]
    for seed in seeds:
        try:
            jobs.run("train", [f"experiment={asked.name}", *seed, *asked.overrides, *asked.flags], folders)
        except Stopped:  # the training has printed how to resume
            runs.append(str(folders.last))
            missing = [" ".join(words) for words in seeds[len(runs) :]]
            more = f", after the trainings with {' and '.join(missing)}, and with their folders" if missing else ""
            again = [word for word in asked.overrides if word.startswith("trust=")] + asked.flags
            then = command("reproduce", shlex.quote(asked.name), word("checkpoint", *runs), *map(shlex.quote, again))
            print(f"then{more}: {then}", flush=True)
            raise
        runs.append(str(folders.last))
    return runs


def parse(arguments: list[str]) -> Asked:
    """Return the words of the command line; UserError for words that do not fit each other."""
    flags, words = split(arguments)
    if unsuited := [flag for flag in flags if flag.startswith("-") and flag.partition("=")[0] not in ("--config-dir", "-cd")]:
        raise UserError(f"metarun reproduce takes no {unsuited[0]}.\n{USAGE}")
    names = [word for word in words if "=" not in word and not word.startswith("~")]
    if len(names) != 1:
        raise UserError(f"metarun reproduce takes one experiment, but got {' and '.join(names) or 'none'}.\n{USAGE}")
    rest = [word for word in words if word not in names and not word.startswith(("checkpoint=", "seeds="))]
    if foreign := [word for word in rest if word.lstrip("+~").startswith(FOREIGN)]:
        raise UserError(f"metarun reproduce takes no {foreign[0]}; train such a run with `metarun train`, and give it as checkpoint=RUN.")
    runs, seeds = _runs(words), _seeds(words)
    training = [word for word in rest if not word.startswith("trust=")] + ([f"seeds={seeds}"] if seeds else [])
    if runs and training:
        raise UserError(f"checkpoint= takes a run as it is, but {training[0]} would change its training; omit one of the two.")
    if seeds and (seed := [word for word in rest if word.startswith("seed=")]):
        raise UserError(f"seeds={seeds} trains under the seeds 0 to {seeds - 1}, so {seed[0]} has no place beside it; omit one of the two.")
    return Asked(names[0], runs, seeds, rest, flags)


def _runs(words: list[str]) -> list[str]:
    """Return the runs of the word `checkpoint=RUN` or `checkpoint=[RUN,RUN]`."""
    named = [word.removeprefix("checkpoint=") for word in words if word.startswith("checkpoint=")]
    if len(named) > 1:
        raise UserError("checkpoint= may occur once; give several runs as checkpoint=[RUN,RUN].")
    if not named:
        return []
    runs = typed_paths(named[0])
    if not runs or not all(runs):
        raise UserError("checkpoint= names no run; give one or several runs, or leave it out to train them.")
    return runs


def _seeds(words: list[str]) -> int | None:
    """Return the number of the word `seeds=N`."""
    typed = [word.removeprefix("seeds=") for word in words if word.startswith("seeds=")]
    if not typed:
        return None
    if not typed[-1].isdecimal() or int(typed[-1]) < 2:
        raise UserError(f"seeds={typed[-1]} must be a whole number of at least 2; an interval over training seeds needs two runs.")
    return int(typed[-1])


def config_of(name: str, flags: list[str]) -> dict[str, Any]:
    """Return the config that `metarun train` composes for the experiment; UserError if no experiment has this name."""
    from metarun.cli import jobs

    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        jobs.run("train", [f"experiment={quoted(name)}", *flags, "--cfg", "job", "--resolve"])  # in quotes, so that `null` is a name
    config: dict[str, Any] = yaml.safe_load(shown.getvalue())
    return config


def check_run(run: str, name: str, config: Mapping[str, Any]) -> None:
    """Raise UserError unless the run is of this experiment."""
    trained = config.get("options", {}).get("experiment")
    if trained != name:
        of = f"of experiment={trained}" if trained else "of no experiment"
        raise UserError(f"{run} is a run {of}, so it cannot reproduce {name}; `metarun eval` scores it.")


def protocol(overrides: Mapping[str, Any]) -> list[str]:
    """Return the overrides of `metarun eval` as words; dots join nested keys."""
    from metarun.commands.overrides import leaves

    return [f"{key}={json.dumps(value)}" for key, value in leaves(overrides)]


def changes(config: Mapping[str, Any], trained: Mapping[str, Any], done: int | None) -> list[str]:
    """Return the differences between a run and its experiment, such as "steps=20 instead of 7200".

    config: the experiment's config. trained: the run's config; a drawn class split (null in the experiment) is no difference. done: the
    step of the run's last checkpoint, or None if unknown.
    """
    from metarun.commands.comparing.naming import NO_CHANGE
    from metarun.commands.overrides import leaves

    always = (*NO_CHANGE, "reproduce", "resume")
    was, now = dict(leaves(config)), dict(leaves(trained))
    replaced = [
        group for group in config if was.get(target := f"{group}._target_") != now.get(target)
    ]  # the other keys of a replaced group tell nothing more
    differences = []
    for key, value in was.items():
        group = key.split(".")[0]
        free = key in always or group in always or (group in replaced and key != f"{group}._target_")
        drawn = value is None and not isinstance(now.get(key), (bool, int, float, str))
        if not free and not drawn and now.get(key) != value:
            differences.append(f"{key}={now.get(key)} instead of {value}")
    if done is not None and done < trained["steps"]:
        differences.append(f"stopped after {done} of {trained['steps']} steps")
    return differences


def compare(experiment: Claim, report: Mapping[str, Any], changed: list[str]) -> dict[str, Any]:
    """Return the measured and the published score; `reproduced` is None if nothing was published.

    It is False wherever more tasks diverged than the experiment allows. The mean of several runs stands under `measured`, and its interval
    is over the runs. changed: the differences between the run and the experiment.
    """
    mean, reproduced = report["mean"], None
    if experiment.published is not None:
        if report["metric"] != experiment.metric:
            raise UserError(f"the experiment's published score is of {experiment.metric}, and this run's is of {report['metric']}.")
        sign = 1.0 if experiment.metric == "accuracy" else -1.0
        reproduced = mean is not None and sign * (mean - experiment.published) >= -experiment.tolerance
    diverged = max(run["diverged"] for run in report.get("runs") or [report])
    if diverged > experiment.diverged:
        reproduced = False
    return {
        "metric": report["metric"],
        "measured": mean,
        "measured_ci95": report["ci95"],
        "measured_ci95_over": report.get("ci95_over", "episodes"),
        "diverged": diverged,
        "diverged_allowed": experiment.diverged,
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
    """Return the comparison as lines of text."""
    over = f" over {result['measured_ci95_over']}" if result["measured_ci95"] is not None else ""
    text = [f"{name}: measured {score(result['metric'], result['measured'], result['measured_ci95'])}{over}"]
    if experiment.published is None:
        text.append(f"published: nothing to compare with{f' ({experiment.source})' if experiment.source else ''}")
    else:
        recalled = ", as recalled and not read again" if experiment.recalled else ""
        text.append(f"published {score(experiment.metric, experiment.published, experiment.ci95)} ({experiment.source}{recalled})")
        verdict = "reproduced" if result["reproduced"] else "NOT reproduced"
        text.append(f"{verdict}: the tolerance is {score(experiment.metric, experiment.tolerance, None)}")
    if result["diverged"] > result["diverged_allowed"]:
        allowed = result["diverged_allowed"]
        text.append(f"NOT reproduced: {result['diverged']} tasks diverged, and the experiment allows {allowed} (reproduce.diverged)")
    text += [f"  known difference: {difference}" for difference in experiment.differences]
    text += [f"  protocol changed: {change}" for change in result["changed"]]
    return text


def score(metric: str, value: float | None, ci95: float | None) -> str:
    """Return a score with its interval: "98.12 % ± 0.23", or in the unit of an error."""
    if value is None:
        return "no finite score"
    if metric == "accuracy":
        return f"{100 * value:.2f} %" + ("" if ci95 is None else f" ± {100 * ci95:.2f}")
    return f"{metric} {value:.3f}" + ("" if ci95 is None else f" ± {ci95:.3f}")
