"""Jobs of Slurm that are queued again."""

from __future__ import annotations

import pytest

from metarun.files.scheduler import is_earlier_start, job_here


@pytest.fixture(autouse=True)
def slurm(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_CLUSTER_NAME"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_outside_of_slurm_there_is_no_job(slurm: pytest.MonkeyPatch) -> None:
    assert job_here() is None
    assert not is_earlier_start({"id": ":7", "restarts": 0})


def test_a_restart_knows_its_earlier_starts_and_no_other_job(slurm: pytest.MonkeyPatch) -> None:
    slurm.setenv("SLURM_JOB_ID", "7")
    first = job_here()
    assert first == {"id": ":7", "restarts": 0}
    assert not is_earlier_start(first), "another step of the same start may be alive"
    slurm.setenv("SLURM_RESTART_COUNT", "1")
    assert is_earlier_start(first)
    assert not is_earlier_start(job_here())
    slurm.setenv("SLURM_CLUSTER_NAME", "other")
    assert not is_earlier_start(first)


@pytest.mark.parametrize("job", [None, "7", {}, {"id": ":7"}, {"id": ":7", "restarts": "0"}, {"id": ":8", "restarts": 0}])
def test_a_file_that_says_something_else_names_no_earlier_start(slurm: pytest.MonkeyPatch, job: object) -> None:
    slurm.setenv("SLURM_JOB_ID", "7")
    slurm.setenv("SLURM_RESTART_COUNT", "3")
    assert not is_earlier_start(job)
