"""The job of Slurm that this process belongs to, and whether another process belonged to an earlier start of it.

A job that is queued again keeps its SLURM_JOB_ID. Slurm counts SLURM_RESTART_COUNT up, from 1 at the first restart, and starts the job
again only after the processes of its earlier start have ended.
"""

from __future__ import annotations

import os
from typing import Any


def job_here() -> dict[str, Any] | None:
    """Return the id and the restarts of the job; None outside of Slurm. Each task of an array has an id of its own."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return None
    cluster, restarts = os.environ.get("SLURM_CLUSTER_NAME", ""), os.environ.get("SLURM_RESTART_COUNT", "")
    return {"id": f"{cluster}:{job}", "restarts": int(restarts) if restarts.isdecimal() else 0}


def is_earlier_start(job: Any) -> bool:
    """Return whether a process whose `job_here` was `job` belonged to an earlier start of the job of this process, so that it has ended."""
    here = job_here()
    if here is None or not isinstance(job, dict) or job.get("id") != here["id"]:
        return False
    restarts = job.get("restarts")
    return isinstance(restarts, int) and restarts < here["restarts"]
