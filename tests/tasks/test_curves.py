from __future__ import annotations

import pytest
import torch

from metarun import draws
from metarun.tasks.curves import LINES, PARABOLAS, Polynomials, line, quadratic

MANY = draws.key(0, "train", torch.arange(20_000))


def in_range(values: torch.Tensor, low: float, high: float) -> None:
    margin = 0.01 * (high - low)
    assert low <= values.min() <= low + margin
    assert high - margin <= values.max() <= high


def test_lines_have_the_documented_ranges_and_no_curvature():
    drawn = LINES.draw(MANY)
    in_range(drawn["slope"], -1.0, 1.0)
    in_range(drawn["offset"], -2.0, 2.0)
    assert (drawn["curvature"] == 0).all()
    assert (drawn["centre"] == 0).all()


def test_parabolas_have_the_documented_ranges_and_no_slope_at_their_vertex():
    drawn = PARABOLAS.draw(MANY)
    in_range(drawn["curvature"], -0.2, 0.2)
    in_range(drawn["centre"], -2.0, 2.0)
    in_range(drawn["offset"], -2.0, 2.0)
    assert (drawn["slope"] == 0).all()


def test_values_by_hand():
    """At x = 3 around 1: 0.5 + 2 * 2 + 3 * 4 = 16.5."""
    function = {name: torch.tensor([value]) for name, value in {"slope": 2.0, "curvature": 3.0, "centre": 1.0, "offset": 0.5}.items()}
    assert Polynomials().values(function, torch.tensor([[[3.0]]])).item() == 16.5


@pytest.mark.parametrize("make", [line, quadratic])
def test_the_curve_passes_through_the_query(make):
    source = make()
    query = source.episode("test", 9).query
    torch.testing.assert_close(source.curve("test", 9, query.x), query.y)


@pytest.mark.parametrize(
    ("make", "y"), [(line, [-0.700706, -2.848403, 0.537416]), (quadratic, [-0.613114, -1.219453, -1.585459])], ids=["line", "quadratic"]
)
def test_the_stream_is_pinned(make, y: list[float]):
    episode = make(shots=2, queries=1, seed=7).episode("train", 3)
    torch.testing.assert_close(torch.cat([episode.support.y, episode.query.y])[:, 0], torch.tensor(y), atol=2e-6, rtol=0)
