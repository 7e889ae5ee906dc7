"""`metarun reproduce EXPERIMENT`: train, evaluate under the experiment's protocol, and set the score beside the published one.

What was published, where, and how the protocols differ is data of the experiment's file, under its key `reproduce`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from metarun.arguments import split
from metarun.errors import UserError, nearest
from metarun.folders import claim

USAGE = "usage: metarun reproduce EXPERIMENT [checkpoint=RUN] [key=value of metarun train ...] [--config-dir DIR]"


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
    experiment = read_claim(name, flags)
    from metarun import jobs

    if run is not None:
        check_run(run, name)
    folder = Path(claim(f"outputs/reproduce/{name}_{datetime.now():%Y-%m-%d_%H-%M-%S}"))
    if run is None:
        run = str(folder / "run")
        jobs.run("train", [f"experiment={name}", *overrides, f"hydra.run.dir={run}", *flags])
        if not (Path(run) / "report.json").is_file():  # interrupted, and has said how to go on
            print(f"then: metarun reproduce {name} checkpoint={run}", flush=True)
            return 130
    protocol = [f"{key}={value}" for key, value in experiment.eval.items()]
    jobs.run("eval", [f"checkpoint={run}", *protocol, f"hydra.run.dir={folder / 'evaluation'}"])
    file = folder / "evaluation" / "report.json"
    report = json.loads(file.read_text(encoding="utf-8"))
    result = compare(experiment, report, overrides)
    file.write_text(json.dumps({**report, "reproduction": result}, indent=2) + "\n", encoding="utf-8")
    print("\n".join(lines(name, experiment, result)), flush=True)
    return 1 if result["reproduced"] is False else 0


def parse(arguments: list[str]) -> tuple[str, str | None, list[str], list[str]]:
    """Return the experiment's name, the run of `checkpoint=`, the overrides for its training, and the flags."""
    flags, words = split(arguments)
    if unsuited := [flag for flag in flags if flag.startswith("-") and flag.partition("=")[0] not in ("--config-dir", "-cd")]:
        raise UserError(f"metarun reproduce takes no {unsuited[0]}.\n{USAGE}")
    names = [word.removeprefix("experiment=") for word in words if "=" not in word or word.startswith("experiment=")]
    if len(names) != 1:
        raise UserError(f"metarun reproduce takes one experiment, here {' and '.join(names) or 'none'}.\n{USAGE}")
    rest = [word for word in words if "=" in word and not word.startswith(("experiment=", "checkpoint="))]
    runs = [word.removeprefix("checkpoint=") for word in words if word.startswith("checkpoint=")]
    if runs and rest:
        raise UserError(f"checkpoint= takes a run as it is, and {rest[0]} would change its training; leave one of them out.")
    return names[0], runs[-1] if runs else None, rest, flags


def check_run(run: str, name: str) -> None:
    """Raise UserError where the run is not of this experiment."""
    from metarun import checkpoint

    trained = checkpoint.load(checkpoint.resolve(run)).config.get("chosen", {}).get("experiment")
    if trained != name:
        of = f"of experiment={trained}" if trained else "of no experiment"
        raise UserError(f"{run} is a run {of}, so it cannot reproduce {name}; `metarun eval` scores it.")


def read_claim(name: str, flags: list[str]) -> Claim:
    """Return what the experiment says; UserError where there is none of that name, or it is not for reproducing."""
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    from metarun.listing import config_dir, options

    folders = [
        config_dir(word.partition("=")[2] or after) for word, after in zip(flags, [*flags, ""][1:], strict=True) if word.startswith("-")
    ]
    known = options("experiment", [*_shipped(), *folders])
    if name not in known:
        raise UserError(f"there is no experiment '{name}'.{nearest(name, known)} `metarun list experiment` names them.")
    GlobalHydra.instance().clear()
    search = [f"hydra.searchpath=[{','.join(folder.absolute().as_uri() for folder in folders)}]"] if folders else []
    with initialize_config_module("metarun.configs", version_base="1.3"):
        composed = compose("train", [f"experiment={name}", *search])
    content: Any = OmegaConf.to_container(composed)["reproduce"]  # type: ignore[index,call-overload]
    if content is None:
        raise UserError(f"experiment={name} has no `reproduce:` with a protocol, so there is nothing to set its score beside.")
    if unknown := set(content) - {each.name for each in fields(Claim)}:
        raise UserError(
            f"experiment={name}: `reproduce:` has no key '{unknown.pop()}'; it has {', '.join(each.name for each in fields(Claim))}."
        )
    return Claim(**{**content, "differences": tuple(content.get("differences", ()))})


def compare(experiment: Claim, report: Mapping[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Return our score beside the published one; `reproduced` is None where nothing was published."""
    if report["metric"] != experiment.metric:
        raise UserError(f"the experiment's published score is of {experiment.metric}, and this run's is of {report['metric']}.")
    mean = report["mean"]
    reproduced = None
    if experiment.published is not None:
        sign = 1.0 if experiment.metric == "accuracy" else -1.0
        reproduced = mean is not None and sign * (mean - experiment.published) >= -experiment.tolerance
    return {
        "measured": mean,
        "measured_ci95": report["ci95"],
        "published": experiment.published,
        "published_ci95": experiment.ci95,
        "source": experiment.source,
        "recalled": experiment.recalled,
        "tolerance": experiment.tolerance,
        "reproduced": reproduced,
        "differences": list(experiment.differences),
        "changed": overrides,
    }


def lines(name: str, experiment: Claim, result: Mapping[str, Any]) -> list[str]:
    """Return the comparison for a person."""
    said = [f"{name}: measured {score(experiment.metric, result['measured'], result['measured_ci95'])}"]
    if experiment.published is None:
        said.append(f"published: nothing to compare with{f' ({experiment.source})' if experiment.source else ''}")
    else:
        recalled = ", as recalled and not read again" if experiment.recalled else ""
        said.append(f"published {score(experiment.metric, experiment.published, experiment.ci95)} ({experiment.source}{recalled})")
        verdict = "reproduced" if result["reproduced"] else "NOT reproduced"
        said.append(f"{verdict}: it may fall short by {score(experiment.metric, experiment.tolerance, None)}")
    said += [f"  known difference: {difference}" for difference in experiment.differences]
    if result["changed"]:
        said.append(f"  changed for this run: {' '.join(result['changed'])}")
    return said


def score(metric: str, value: float | None, ci95: float | None) -> str:
    """Return a score with its interval: "98.12 % ± 0.23", or in the unit of an error."""
    if value is None:
        return "no finite score"
    if metric == "accuracy":
        return f"{100 * value:.2f} %" + ("" if ci95 is None else f" ± {100 * ci95:.2f}")
    return f"{metric} {value:.3f}" + ("" if ci95 is None else f" ± {ci95:.3f}")


def _shipped() -> list[Any]:
    from importlib.resources import files

    return [files("metarun.configs")]
