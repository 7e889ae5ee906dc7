"""Pictures of what evaluated models predict: that they show what was scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import draw_predictions
import pytest
import torch
from small import composed

from metarun import draws
from metarun.commands.evaluate import evaluate as run_evaluation
from metarun.commands.train import train
from metarun.engine.evaluation import evaluate
from metarun.records.checkpoint import load
from metarun.wiring.build import build

SHORT = ("steps=2", "tasks_per_step=2", "eval_every=2", "eval_episodes=3", "logger=jsonl", "device=cpu", "device.threads=1")
SMALL = ("task=ambiguous", "backbone=mlp", "backbone.widths=[4]", "task.queries=40")


def evaluated(folder: Path, *overrides: str, chosen: str) -> Path:
    config = composed(*SHORT, *overrides)
    config["options"] = {"algo": chosen, "task": "small"}
    train(config, folder / "run")
    groups: dict[str, Any] = {"algo": {}, "task": {}, "backbone": {}, "device": {}, "trust": [], "options": {}}
    options = {"split": "test", "episodes": 4, "seed": 0, "inner_steps": None, "norm": None, "save": None}
    run_evaluation({"checkpoint": str(folder / "run"), **options, **groups}, folder / "eval")
    return folder / "eval"


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    maml = evaluated(folder / "maml", *SMALL, "algo.inner_lr=0.01", chosen="maml")
    return [maml, evaluated(folder / "pmaml", *SMALL, "algo=pmaml", "algo.inner_lr=0.01", "algo.samples=5", chosen="pmaml")]


@pytest.mark.parametrize("which", [0, 1])
def test_the_band_covers_as_many_targets_as_the_report_says(evaluations: list[Path], which: int) -> None:
    """At the query points: the share inside of the band is the episodes' coverage."""
    report = draw_predictions.read(evaluations[which])
    parts, stored = build(report["config"]), load(evaluations[which].parent / "run" / "checkpoints" / "best.pt")
    trained = draw_predictions.assemble(parts, [stored])
    shares = []
    for index in range(4):
        query = parts.source.episode("test", index).query
        panel = draw_predictions.panel(report, parts, trained, index)
        # The lines between the panel's points stand in for the model at the query points.
        nearest = (panel.x.T - query.x).abs().argmin(dim=1)
        shares.append(float(((panel.low[nearest] <= query.y) & (query.y <= panel.high[nearest])).double().mean()))
    scored = evaluate(*trained, parts.source, split="test", episodes=4, variance=report["variance"])
    assert scored.coverage90 == pytest.approx(report["coverage90"], abs=1e-6)
    assert sum(shares) / 4 == pytest.approx(report["coverage90"], abs=0.03)


def test_the_samples_are_those_of_the_evaluations_noise(evaluations: list[Path]) -> None:
    report = draw_predictions.read(evaluations[1])
    parts, stored = build(report["config"]), load(evaluations[1].parent / "run" / "checkpoints" / "best.pt")
    trained = draw_predictions.assemble(parts, [stored])
    panel = draw_predictions.panel(report, parts, trained, 2)
    support = parts.source.episode("test", 2).support

    def samples(seed: int) -> torch.Tensor:
        adapted = trained.algorithm.adapt(trained.params, trained.state, support, draws.key(seed, "evaluate", "test", 2))
        sampled: torch.Tensor = trained.algorithm.sampled(adapted, panel.x)  # type: ignore[attr-defined]
        return sampled

    torch.testing.assert_close(panel.samples, samples(0))
    assert float((panel.samples - samples(1)).abs().max().detach()) > 1e-3


def test_a_picture_has_a_row_for_each_episode_and_a_column_for_each_model(
    evaluations: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(draw_predictions, "prediction_figure", lambda *given: drawn.append(given) or Figure())
    assert draw_predictions.main([*map(str, evaluations), "--episodes", "3,1", "--out", str(tmp_path / "a.png")]) == 0
    ((panels, interval),) = drawn
    assert ([name.split("\n")[0] for name in panels], interval) == (["maml", "pmaml"], "90 % interval")
    source = build(draw_predictions.read(evaluations[0])["config"]).source
    for column in panels.values():
        for panel, index in zip(column, (3, 1), strict=True):
            torch.testing.assert_close(panel.support_y, source.episode("test", index).support.y)
            torch.testing.assert_close(panel.truth, source.curve("test", index, panel.x))  # type: ignore[attr-defined]
            assert bool((panel.low < panel.high).all())


def test_the_bayes_predictor_is_the_first_column_with_functions_of_its_posterior(
    evaluations: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []
    monkeypatch.setattr(draw_predictions, "prediction_figure", lambda *given: shown.append(given) or Figure())
    assert draw_predictions.main([str(evaluations[0]), "--bayes", "--episodes", "2", "--out", str(tmp_path / "a.png")]) == 0
    panels = shown[0][0]
    report = draw_predictions.read(evaluations[0])
    assert [name.split("\n")[0] for name in panels] == ["Bayes", "maml"]
    assert next(iter(panels)).endswith(f"nll {report['bayes']['nll']:.2f}, covers {100 * report['bayes']['coverage90']:.0f} %")
    (panel,) = next(iter(panels.values()))
    support = build(report["config"]).source.episode("test", 2).support
    at_support = (panel.x.T - support.x).abs().argmin(dim=1)
    assert panel.samples.shape == (6, 300, 1)
    assert float((panel.samples[:, at_support] - support.y).abs().max()) < 1.5  # five deviations of the noise
    inside = (panel.samples >= panel.low) & (panel.samples <= panel.high)
    assert float(inside.double().mean()) > 0.7


def test_a_distribution_is_drawn_by_its_mean_and_its_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = evaluated(tmp_path, *SMALL, "algo=cnp", chosen="cnp")
    report = draw_predictions.read(path)
    parts, stored = build(report["config"]), load(tmp_path / "run" / "checkpoints" / "best.pt")
    panel = draw_predictions.panel(report, parts, draw_predictions.assemble(parts, [stored]), 0)
    assert report["variance"] is None
    assert panel.samples.shape == (1, 300, 1)
    assert bool(((panel.low < panel.samples[0]) & (panel.samples[0] < panel.high)).all())


class Figure:
    def savefig(self, path: Path) -> None:
        path.write_bytes(b"")


def test_the_picture_is_written(evaluations: list[Path], tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    assert draw_predictions.main([str(evaluations[1] / "report.json"), "--out", str(file)]) == 0
    assert file.read_bytes().startswith(b"\x89PNG")


def test_padding_is_no_point_of_the_picture(tmp_path: Path) -> None:
    report = draw_predictions.read(evaluated(tmp_path, *SMALL, "task.min_shots=1", "algo.inner_lr=0.01", chosen="maml"))
    parts = build(report["config"])
    trained = draw_predictions.assemble(parts, [load(tmp_path / "run" / "checkpoints" / "best.pt")])
    for index in range(4):
        support = parts.source.episode("test", index).support
        assert support.mask is not None
        assert len(draw_predictions.panel(report, parts, trained, index).support_x) == int(support.mask.sum())


def test_what_cannot_be_drawn_is_said_in_a_sentence(evaluations: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wide = evaluated(
        tmp_path, "task=regression", "task.inputs=2", "backbone=mlp", "backbone.widths=[4]", "algo.inner_lr=0.01", chosen="maml"
    )
    plain = evaluated(tmp_path / "plain", "task=sinusoid", "backbone=mlp", "algo.inner_lr=0.01", chosen="maml")
    same, other = str(evaluations[0]), str(tmp_path / "other.json")
    moved, stale = tmp_path / "moved.json", tmp_path / "stale.json"
    report = json.loads((evaluations[1] / "report.json").read_text())
    moved.write_text(json.dumps(report | {"config": report["config"] | {"task": report["config"]["task"] | {"eval_seed": 1}}}))
    stale.write_text(json.dumps(report | {"step": 1}))
    Path(other).write_text('{"metric": "accuracy"}')
    for paths, sentence in (
        ([same, same], "2 evaluations need as many different names"),
        ([other], "is not a report of metarun eval on a regression"),
        ([str(wide)], "more than one input or output"),
        ([str(tmp_path / "none")], "No such file"),
        ([same, "--episodes", "a"], "must be whole numbers"),
        ([str(plain), "--bayes"], "knows no exact Bayes predictor"),
        ([same, "--names", "a,b"], "1 evaluations need as many different names"),
        ([same, str(moved)], "not of the same episodes"),
        ([str(stale)], "is now of step 2, but the report is of step 1"),
    ):
        assert draw_predictions.main([*paths, "--out", str(tmp_path / "a.png")]) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()
