"""The contract of an algorithm and of a task source, as plain functions for any test suite: metarun's own and yours.

    from metarun.testing import check_algorithm, check_source

    def test_mine_keeps_the_contract():
        check_source(source)
        check_algorithm(algorithm, source)

Each check raises AssertionError with a sentence. The checks of an algorithm compute in float64, so that two ways to the same result
agree to the last few digits. The checks of a source take its episodes as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_map, tree_map_only

from metarun import draws
from metarun.engine.evaluation import score_episode
from metarun.engine.training import gradients_of
from metarun.episodes import deal
from metarun.types import Algorithm, Aux, Episode, Examples, Params, State, TaskSource, WithBatches

TOLERANCE = 1e-9
"""The largest difference of two equal results, as a share of the largest value of the tensor (at least of 1)."""


def check_algorithm(algorithm: Algorithm, source: TaskSource) -> None:
    """Run every check of an algorithm on the first episodes of a source, which must have no padding."""
    check_shapes(algorithm, source)
    check_pure(algorithm, source)
    check_finite_gradients(algorithm, source)
    check_batched_equals_loop(algorithm, source)
    check_padding_changes_nothing(algorithm, source)


def check_source(source: TaskSource) -> None:
    """Run every check of a task source, on each of its splits."""
    for split in ("train", "val", "test"):
        check_deterministic_by_index(source, split)


def check_shapes(algorithm: Algorithm, source: TaskSource) -> None:
    """Check that outputs fit the targets, the loss is a scalar, and a step keeps the names and shapes of the state."""
    params, state = start(algorithm)
    params = {name: value.requires_grad_() for name, value in params.items()}
    batch, keys = first_episodes(source, 2)
    episode, key = _one(batch, 0), keys[0]
    outputs = algorithm.predict(algorithm.adapt(params, state, episode.support, key), episode.query.x, episode.query.mask)
    wanted = tuple(episode.query.y.shape)
    assert tuple(outputs.shape) == wanted, f"predict gives outputs of shape {tuple(outputs.shape)} for targets of shape {wanted}."
    loss, aux = algorithm.loss(params, state, episode, key, torch.tensor(0))
    assert loss.shape == (), f"loss gives a tensor of shape {tuple(loss.shape)}; it must be one number."
    assert "loss" in aux.metrics, f"Aux.metrics has {', '.join(aux.metrics) or 'nothing'} and lacks 'loss'."
    for name, value in {**aux.metrics, **aux.state}.items():
        assert not value.requires_grad, f"Aux carries '{name}' with a gradient; use Aux.of, or every step keeps its graph."
    after = algorithm.update_state(state, gradients_of(algorithm, params, state, batch, keys, torch.tensor(0))[2].state)
    was, now = ({name: tuple(value.shape) for name, value in tensors.items()} for tensors in (state, after))
    assert was == now, f"update_state turns a state of {was} into one of {now}; a checkpoint needs constant names and shapes."


def check_pure(algorithm: Algorithm, source: TaskSource) -> None:
    """Check that the same arguments give the same results, to the last bit, and stay unchanged."""
    first, second = start(algorithm), start(algorithm)
    assert_same(first, second, "init gives different parameters or state for the same key", tolerance=0.0)
    params, state = first
    batch, keys = first_episodes(source, 2)
    episode = _one(batch, 0)
    before = tree_map_only(Tensor, torch.clone, (params, state, batch, keys))

    def everything() -> Any:
        adapted = algorithm.adapt(params, state, episode.support, keys[0])
        outputs = algorithm.predict(adapted, episode.query.x, episode.query.mask)
        gradients = gradients_of(*_arguments(algorithm, params, state, batch, keys))
        return outputs, gradients, algorithm.update_state(state, gradients[2].state)

    once, twice = everything(), everything()
    assert_same(once, twice, "a second call with the same arguments gives another result", tolerance=0.0)
    assert_same(before, (params, state, batch, keys), "an argument was changed in place", tolerance=0.0)


def check_finite_gradients(algorithm: Algorithm, source: TaskSource) -> None:
    """Check that loss and gradient are finite at the initial parameters."""
    params, state = start(algorithm)
    batch, keys = first_episodes(source, 3)
    gradients, losses, _ = gradients_of(*_arguments(algorithm, params, state, batch, keys))
    assert torch.isfinite(losses).all(), f"the losses of the first episodes are {losses.tolist()}."
    for name, gradient in gradients.items():
        assert gradient.shape == params[name].shape, f"the gradient of '{name}' has shape {tuple(gradient.shape)}."
        assert torch.isfinite(gradient).all(), f"the gradient of '{name}' is not finite at the initial parameters."


def check_batched_equals_loop(algorithm: Algorithm, source: TaskSource, tasks: int = 3) -> None:
    """Check that all tasks at once, chunks of tasks, and single tasks give the same gradients, losses and aux."""
    params, state = start(algorithm)
    batch, keys = first_episodes(source, tasks)
    whole = gradients_of(*_arguments(algorithm, params, state, batch, keys))
    for size in (1, 2):
        parts = [
            gradients_of(*_arguments(algorithm, params, state, _rows(batch, rows), keys[rows])) for rows in torch.arange(tasks).split(size)
        ]
        assert_same(whole, _join(parts), f"chunks of {size} differ from all {tasks} tasks at once")
    looped = [algorithm.loss(params, state, _one(batch, i), keys[i], torch.tensor(0)) for i in range(tasks)]
    joined = torch.stack([loss.detach() for loss, _ in looped]), tree_map(lambda *leaves: torch.stack(leaves), *[aux for _, aux in looped])
    assert_same(whole[1:], joined, "the loss mapped over tasks differs from one call for each task")


def check_padding_changes_nothing(algorithm: Algorithm, source: TaskSource) -> None:
    """Check that padding rows in support and query change neither loss, gradient, aux nor score, whatever their content."""
    params, state = start(algorithm)
    batch, keys = first_episodes(source, 2)
    plain = gradients_of(*_arguments(algorithm, params, state, batch, keys))
    score = score_episode(algorithm, params, state, _one(batch, 0), keys[0])["by_step"]
    support, query = pad(batch.support, 3), pad(batch.query, 2)
    for padded in (Episode(support, query), Episode(batch.support, query), Episode(support, batch.query)):
        with_rows = gradients_of(*_arguments(algorithm, params, state, padded, keys))
        assert_same(plain, with_rows, "padding rows change the loss, the gradient or the aux")
        assert_same(score, score_episode(algorithm, params, state, _one(padded, 0), keys[0])["by_step"], "padding rows change the score")


def check_deterministic_by_index(source: TaskSource, split: str = "train") -> None:
    """Check that episode n is always the same, that another number is another episode, and that `batch` deals the same episodes."""
    first = source.episode(split, 3)
    other = source.episode(split, 0)
    assert_same(first, source.episode(split, 3), f"episode 3 of '{split}' is another one when it is dealt again", tolerance=0.0)
    alike = first.support.x.shape == other.support.x.shape and torch.equal(first.support.x, other.support.x)
    assert not alike, f"episodes 0 and 3 of '{split}' have the same support set."
    if isinstance(source, WithBatches):
        batch = source.batch(split, torch.tensor([3, 0]))
        assert_same(_one(batch, 0), first, f"batch deals another episode 3 of '{split}' than episode does", tolerance=1e-6)
        assert_same(_one(batch, 1), other, f"batch deals another episode 0 of '{split}' than episode does", tolerance=1e-6)


def start(algorithm: Algorithm, seed: int = 0) -> tuple[Params, State]:
    """Return initial parameters and state in float64."""
    initial: tuple[Params, State] = double(algorithm.init(draws.key(seed, "init")))
    return initial


def first_episodes(source: TaskSource, tasks: int) -> tuple[Episode, Tensor]:
    """Return the first training episodes with a leading axis T, in float64, and their keys (T,)."""
    indices = torch.arange(tasks)
    return double(deal(source, "train", indices)), draws.key(0, "train", indices)


def double(tree: Any) -> Any:
    """Return a pytree with its floating-point tensors in float64."""
    return tree_map_only(Tensor, lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, tree)


def pad(examples: Examples, count: int) -> Examples:
    """Return a batch of examples (T, B, ...) with `count` padding rows among the others: noise with labels of real rows."""
    rows = examples.x.shape[1]
    order = torch.tensor([0, rows, *range(1, rows), *range(rows + 1, rows + count)])  # one after the first, the others at the end
    noise = 3.0 * draws.normal(draws.key(7, "padding"), *examples.x.shape[:1], count, *examples.x.shape[2:], dtype=examples.x.dtype)
    x = torch.cat([examples.x, noise], dim=1)[:, order]
    y = torch.cat([examples.y, examples.y[:, torch.arange(count) % rows]], dim=1)[:, order]
    mask = torch.ones(examples.x.shape[:2], dtype=torch.bool) if examples.mask is None else examples.mask
    return Examples(x, y, torch.cat([mask, mask.new_zeros(len(mask), count)], dim=1)[:, order], examples.classes)


def assert_same(first: Any, second: Any, sentence: str, *, tolerance: float = TOLERANCE) -> None:
    """Raise AssertionError with the sentence, the place and the difference, unless two pytrees are equal. NaN equals NaN."""
    ours, theirs = tree_flatten_with_path(first), tree_flatten_with_path(second)
    assert ours[1] == theirs[1], f"{sentence}: {ours[1]} against {theirs[1]}."
    for (path, a), (_, b) in zip(ours[0], theirs[0], strict=True):
        if not isinstance(a, Tensor):
            assert a == b, f"{sentence}: {a} against {b} at {keystr(path)}."
            continue
        assert a.shape == b.shape, f"{sentence}: shape {tuple(a.shape)} against {tuple(b.shape)} at {keystr(path)}."
        a, b = a.detach().double(), b.detach().double()
        size = max(1.0, float(a.nan_to_num().abs().max())) if a.numel() else 1.0
        if not torch.allclose(a, b, rtol=0.0, atol=tolerance * size, equal_nan=True):
            difference = float((a - b).abs().nan_to_num(torch.inf).max())
            raise AssertionError(f"{sentence}: a difference of {difference:.3g} at {keystr(path)}, where values go up to {size:.3g}.")


def _arguments(algorithm: Algorithm, params: Params, state: State, batch: Episode, keys: Tensor) -> tuple[Any, ...]:
    return algorithm, params, state, batch, keys, torch.tensor(0)


def _one(batch: Episode, task: int) -> Episode:
    episode: Episode = tree_map_only(Tensor, lambda leaf: leaf[task], batch)
    return episode


def _rows(batch: Episode, rows: Tensor) -> Episode:
    part: Episode = tree_map_only(Tensor, lambda leaf: leaf[rows], batch)
    return part


def _join(parts: list[tuple[Params, Tensor, Aux]]) -> tuple[Params, Tensor, Aux]:
    """Join chunks as the engine does: add gradients, and concatenate losses and aux along the tasks."""
    gradients = {name: sum((part[0][name] for part in parts[1:]), parts[0][0][name]) for name in parts[0][0]}
    aux: Aux = tree_map(lambda *leaves: torch.cat(leaves), *[part[2] for part in parts])
    return gradients, torch.cat([part[1] for part in parts]), aux
