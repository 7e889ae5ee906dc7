"""The stream of sine functions."""

from __future__ import annotations

import math

import pytest
import torch
from small import composed

from metarun import testing
from metarun.errors import UserError
from metarun.tasks.sine_stream import SineStreams


def test_each_input_is_the_number_of_its_function_and_x_and_function_follows_function():
    source = SineStreams(functions=4, steps=3, step_points=2, held_out=5)
    support, query = source.episode("test", 0)
    assert (support.x.shape, support.y.shape, query.x.shape) == ((24, 5), (24, 1), (20, 5))
    assert torch.equal(support.x[:, :4], torch.eye(4).repeat_interleave(6, dim=0))
    assert torch.equal(query.x[:, :4], torch.eye(4).repeat_interleave(5, dim=0))
    assert source.trajectory("test") == (4, 6, 5, 2)
    assert support.x[:, 4].abs().max() <= 5.0


def test_the_points_of_a_function_lie_on_one_sine_with_the_amplitude_and_phase_of_the_released_code():
    source = SineStreams(functions=3, steps=4, step_points=5, held_out=6)
    support, query = source.episode("train", 7)
    for function in range(3):
        rows, held = slice(20 * function, 20 * function + 20), slice(6 * function, 6 * function + 6)
        x = torch.cat([support.x[rows, 3], query.x[held, 3]]).double()
        y = torch.cat([support.y[rows, 0], query.y[held, 0]]).double()
        # A sin(x + φ) = a sin x + b cos x, so least squares find A and φ.
        a, b = torch.linalg.lstsq(torch.stack([x.sin(), x.cos()], dim=1), y[:, None]).solution[:, 0]
        assert torch.allclose(a * x.sin() + b * x.cos(), y, atol=1e-5)
        assert 0.1 <= math.hypot(a, b) <= 5.1
        assert -1e-6 <= math.atan2(b, a) <= math.pi


def test_training_functions_come_from_a_fixed_set_and_trajectories_are_numbered():
    source = SineStreams(functions=2, steps=1, step_points=1, held_out=1, train_functions=2)
    testing.check_source(source)
    amplitudes = {round(float(each), 5) for index in range(4) for each in source._functions("train", torch.tensor([index]))[0].flatten()}
    assert len(source._functions("test", torch.arange(4))[0].unique()) == 8
    key_dependent = [source.batch("train", torch.tensor([index])).support.x for index in range(2)]
    assert not torch.equal(*key_dependent)
    assert len(amplitudes) == 2


def test_more_functions_than_the_training_has_are_refused():
    with pytest.raises(
        UserError, match=r"a trajectory of task\.functions=5 needs as many training functions; raise task\.train_functions=3 to 5"
    ):
        SineStreams(functions=5, train_functions=3)


@pytest.mark.parametrize("algo", ["oml", "anml"])
@pytest.mark.parametrize(("task", "points"), [("sine_stream", 32), ("stream", 1), ("sinusoid", 1)])
def test_an_inner_step_of_meta_training_takes_the_points_of_a_step_of_the_stream(algo: str, task: str, points: int):
    """One step for each of the 12,800 points would take gigabytes for the outer gradient."""
    assert composed(f"algo={algo}", f"task={task}", "backbone=mlp")["algo"]["inner_batch"] == points
