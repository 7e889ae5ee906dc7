"""What TensorBoard gets to see of a validation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from metarun import draws
from metarun.algorithms.maml import Maml
from metarun.algorithms.nearest import Nearest
from metarun.algorithms.protonet import ProtoNet
from metarun.backbones.classifier import Classifier
from metarun.backbones.mlp import Mlp
from metarun.commands import showing
from metarun.commands.showing import Showing
from metarun.engine.evaluation import evaluate
from metarun.engine.report import Report
from metarun.engine.training import Position, Settings
from metarun.network import Network
from metarun.objectives import CLASSIFICATION, REGRESSION
from metarun.tasks.curves import line
from metarun.tasks.functions import FunctionTasks
from metarun.tasks.mixture import Mixture
from metarun.tasks.pool import SPLITS, ClassPool
from metarun.tasks.regression import regression
from metarun.tasks.sampling import FewShot
from metarun.tasks.sinusoid import sinusoid
from metarun.tasks.stream import Streams
from metarun.types import Algorithm, TaskSource


@dataclass
class Pad:
    """Stands in for the tracker: keeps what was drawn."""

    draws_figures: bool = True
    drawn: list[tuple[int, str, Figure]] = field(default_factory=list)

    def figure(self, step: int, tag: str, figure: Figure) -> None:
        self.drawn.append((step, tag, figure))


def letters(channels: int = 1, **sampling: Any) -> FewShot:
    """Four classes of six random 4x4 images in each split."""
    images = (draws.uniform(draws.key(1), 24, channels, 4, 4) * 255).to(torch.uint8)
    pool = ClassPool(images, [6] * 4, list("abcd"))
    return FewShot(dict.fromkeys(SPLITS, pool), ways=3, shots=2, queries=4, **sampling)


def head(source: TaskSource, norm: str = "batch") -> Network:
    support = source.episode("val", 0).support
    torch.manual_seed(0)
    return Network(Classifier(Mlp(support.x.shape[1:], [8]), support.y.shape[-1]), norm)


def validated(algorithm: Algorithm, source: TaskSource, tracker: Any, steps: tuple[int, ...] = (1,)) -> Showing:
    """Show validations at these steps of a run whose last step is 10."""
    shown = Showing(algorithm, source, tracker, Settings(steps=10))
    params, state = algorithm.init(draws.key(0))
    for step in steps:
        report = evaluate(algorithm, params, state, source, split="val", episodes=1)
        shown.show(Position(step, params, state), report)
    return shown


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sampling", [{}, {"min_ways": 2, "min_shots": 1}])
def test_the_episode_drawn_is_the_first_validation_episode_with_the_score_it_got(channels: int, sampling: dict[str, int]) -> None:
    source, pad = letters(channels, **sampling), Pad()
    algorithm = Maml(head(source), CLASSIFICATION, test_inner_steps=3)
    params, state = algorithm.init(draws.key(0))
    score = evaluate(algorithm, params, state, source, split="val", episodes=1).mean
    validated(algorithm, source, pad)
    ((step, tag, figure),) = pad.drawn
    assert (step, tag) == (1, "val/episode_0")
    mask = source.episode("val", 0).query.mask
    total = 12 if mask is None else int(mask.sum())
    assert any(f"{round(score * total)} of {total} right" in text for text in texts(figure))


def test_an_algorithm_without_inner_steps_is_drawn_on_images() -> None:
    source, pad = letters(), Pad()
    torch.manual_seed(0)
    validated(ProtoNet(Network(Mlp((1, 4, 4), [8]), "running"), CLASSIFICATION), source, pad)
    assert len(pad.drawn) == 1


def test_a_curve_is_drawn_with_the_truth_before_and_after_each_inner_step() -> None:
    source, pad = sinusoid(shots=5, queries=9), Pad()
    validated(Maml(head(source), REGRESSION, inner_lr=0.01, test_inner_steps=2), source, pad)
    ((_, tag, figure),) = pad.drawn
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert tag == "val/episode_0"
    assert list(lines) == ["truth", "before adaptation", "after 1 step", "after 2 steps"]
    truth = lines["truth"]
    x = torch.as_tensor(truth.get_xdata(), dtype=torch.float32)[:, None]
    torch.testing.assert_close(torch.as_tensor(truth.get_ydata()), source.curve("val", 0, x)[:, 0])
    episode = source.episode("val", 0)
    seen = torch.cat([episode.support.x, episode.query.x])
    assert (float(x.min()), float(x.max())) == pytest.approx((float(seen.min()), float(seen.max())))


def test_a_curve_has_no_mark_for_padding() -> None:
    source = next(each for seed in range(20) if used(each := sinusoid(shots=5, min_shots=2, queries=9, eval_seed=seed)) == 2)
    pad = Pad()
    validated(Maml(head(source), REGRESSION, inner_lr=0.01), source, pad)
    (marks,) = pad.drawn[0][2].axes[0].collections
    torch.testing.assert_close(torch.as_tensor(marks.get_offsets(), dtype=torch.float32)[:, 0], source.episode("val", 0).support.x[:2, 0])


def used(source: TaskSource) -> int:
    mask = source.episode("val", 0).support.mask
    assert mask is not None
    return int(mask.sum())


@dataclass(frozen=True)
class Curveless:
    """Deals the episodes of another source, and cannot tell their curves."""

    inner: FunctionTasks
    objective: str = "regression"

    def episode(self, split: str, index: int) -> Any:
        return self.inner.episode(split, index)


def test_a_mixture_whose_family_knows_no_curve_is_drawn_without_the_truth() -> None:
    source, pad = Mixture({"line": Curveless(line(shots=5, queries=9))}), Pad()
    validated(Maml(head(source), REGRESSION, inner_lr=0.01), source, pad)
    assert [line.get_label() for line in pad.drawn[0][2].axes[0].lines] == ["before adaptation", "after 1 step"]


@pytest.mark.parametrize("source", [regression(shots=5, queries=5), Curveless(line(shots=5, queries=9))])
def test_another_regression_shows_predicted_against_true_values_before_and_after_adaptation(source: TaskSource) -> None:
    pad = Pad()
    algorithm = Maml(head(source), REGRESSION, inner_lr=0.01, test_inner_steps=2)
    validated(algorithm, source, pad)
    ((step, tag, figure),) = pad.drawn
    assert (step, tag) == (1, "val/episode_0")
    assert figure.get_suptitle() == "val episode 0, step 1"
    shown = {each.get_label(): torch.as_tensor(each.get_offsets(), dtype=torch.float32) for each in figure.axes[0].collections}
    assert list(shown) == ["before adaptation", "after adaptation"]
    query = source.episode("val", 0).query
    params, state = algorithm.init(draws.key(0))
    for step, name in ((0, "before adaptation"), (2, "after adaptation")):
        adapted = algorithm.trajectory(params, state, source.episode("val", 0).support, draws.key(0))[step]
        expected = torch.cat([query.y[:, :1], algorithm.predict(adapted, query.x)[:, :1]], dim=1)
        torch.testing.assert_close(shown[name], expected.detach(), atol=1e-5, rtol=1e-4)


def test_vectors_of_classes_have_no_picture() -> None:
    images = (draws.uniform(draws.key(1), 24, 5) * 255).float()
    pad, source = Pad(), FewShot(dict.fromkeys(SPLITS, ClassPool(images, [6] * 4, list("abcd"))), ways=3, shots=2, queries=4)
    shown = validated(Maml(head(source), CLASSIFICATION), source, pad)
    assert pad.drawn == []
    assert shown.last is not None


def test_the_picture_of_an_episode_names_its_classes() -> None:
    source, pad = letters(), Pad()
    validated(Maml(head(source), CLASSIFICATION), source, pad)
    assert len(set("abcd") & set(texts(pad.drawn[0][2]))) == 3


def test_nothing_is_computed_where_nobody_would_see_it() -> None:
    source = letters()
    algorithm = Maml(head(source), CLASSIFICATION)
    shown = Showing(algorithm, source, Pad(draws_figures=False), Settings())  # type: ignore[arg-type]
    report = Report("accuracy", 0.5, 0.1, 0.5, 0.1, 1, 0, 0, None, None, [0.5], [0.5], [0], 1.0, 0.1, None, [0.5])
    shown.show(Position(1, {}, {}), report)  # without parameters, any forward pass would raise
    assert shown.last == report.summary()


def test_pictures_in_quick_succession_are_left_out_but_never_the_last() -> None:
    source, pad = sinusoid(shots=5, queries=5), Pad()
    validated(Maml(head(source), REGRESSION), source, pad, steps=(1, 2, 3, 10))
    assert [step for step, _, _ in pad.drawn] == [1, 10]


def test_after_a_pause_the_next_picture_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showing, "PAUSE", 0.0)
    source, pad = sinusoid(shots=5, queries=5), Pad()
    validated(Maml(head(source), REGRESSION), source, pad, steps=(1, 2))
    assert [step for step, _, _ in pad.drawn] == [1, 2]


def test_outputs_that_are_not_finite_are_drawn_too() -> None:
    source, pad = letters(), Pad()
    algorithm = Maml(head(source), CLASSIFICATION)
    params, state = algorithm.init(draws.key(0))
    broken: dict[str, Tensor] = {name: value * torch.nan for name, value in params.items()}
    report = evaluate(algorithm, broken, state, source, split="val", episodes=1)
    Showing(algorithm, source, pad, Settings(steps=1)).show(Position(1, broken, state), report)  # type: ignore[arg-type]
    assert len(pad.drawn) == 1


def test_a_stream_shows_its_matrix():
    pad, source = Pad(), Streams(letters(), 3, val_classes=3, per_class=3, held_out=2, train_classes=2, lengths=[1, 2])
    validated(Nearest(objective=CLASSIFICATION), source, pad)
    ((step, tag, figure),) = pad.drawn
    assert (step, tag) == (1, "val/stream_matrix")
    assert figure.axes[0].get_title() == "val trajectories, step 1"
