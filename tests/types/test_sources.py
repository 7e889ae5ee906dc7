"""The optional members of a source."""

from __future__ import annotations

from metarun.tasks.sinusoid import sinusoid
from metarun.types import TaskSource, WithBatches, WithCurve, WithDevice, WithTrainLabels


def test_a_source_is_known_by_the_members_that_it_has():
    source = sinusoid()
    assert isinstance(source, TaskSource)
    assert isinstance(source, WithCurve)
    assert isinstance(source, WithBatches)
    assert not isinstance(source, WithDevice | WithTrainLabels)
