"""A run works without the C kernels, also where the folder `metarun/compute/kernels` is deleted."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from metarun.compute import plan
from metarun.compute.plan import KERNELS, Device, Work, plan_for
from metarun.errors import UserError

ROOT = Path(__file__).parents[2]
C = KERNELS[0]
"""The value of `device.kernels` that asks for the C kernels."""


def test_where_they_are_missing_torchs_kernels_compute_and_the_reason_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(plan, "kernels_missing", lambda: "there is no C compiler")
    device, work = Device("cpu", 2), Work(2e8, 1.0, images=True)
    assert device.plan(work, 16, steps=10**6).kernels == C
    with caplog.at_level("INFO"):
        chosen = plan_for(device, work, 16, 10**6)
    assert chosen == dataclasses.replace(device, kernels="torch").plan(work, 16, steps=10**6)
    assert "not used: there is no C compiler" in caplog.text
    with pytest.raises(UserError, match=r"there is no C compiler; use device\.kernels=torch"):
        plan_for(dataclasses.replace(device, kernels=C), work, 16, 10**6)


def test_kernels_that_are_asked_for_in_vain_are_reported(caplog: pytest.LogCaptureFixture):
    chosen = plan_for(Device("cpu", 2, kernels=C), Work(2e8, 1.0), 16, 100)
    assert chosen.kernels == "torch"
    assert f"device.kernels={C}: not used" in caplog.text


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a copy of the package that has no folder `compute/kernels`."""
    folder = tmp_path_factory.mktemp("installation")

    def left_out(parent: str, names: list[str]) -> list[str]:
        return [name for name in names if name == "__pycache__" or Path(parent, name) == ROOT / "metarun" / "compute" / "kernels"]

    shutil.copytree(ROOT / "metarun", folder / "metarun", ignore=left_out)
    shutil.copytree(ROOT / "configs", folder / "metarun" / "configs")
    return folder


def commands(installation: Path, *commands: str) -> list[tuple[int, str]]:
    """Run commands with the copied package, one after the other in one process; return the exit code and the words of each.

    Two steps on images count as work enough to compile C kernels for.
    """
    code = f"""
import contextlib, io, json, sys, metarun
from metarun.compute import plan
assert metarun.__file__ == {str(installation / "metarun" / "__init__.py")!r}
[worth] = [name for name in vars(plan) if name.endswith("KERNELS_FLOPS")]
setattr(plan, worth, 0.0)
from metarun.cli.main import entry
ended = []
for command in {commands!r}:
    sys.argv = ["metarun", *command.split()]
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
        try:
            entry()
            code = 0
        except SystemExit as error:
            code = error.code or 0
    ended.append((code, said.getvalue()))
print(json.dumps(ended))
"""
    environment = {**os.environ, "PYTHONPATH": str(installation)}
    done = subprocess.run([sys.executable, "-c", code], cwd=installation, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [tuple(each) for each in json.loads(done.stdout)]


def test_a_run_trains_where_the_folder_of_the_kernels_is_deleted_and_refuses_to_use_them(installation: Path):
    words = (
        "train algo=protonet task=glyphs task.samples=2 task.queries=1 task.train_queries=1 backbone.filters=16 steps=2 tasks_per_step=2"
    )
    words += " eval_every=2 eval_episodes=2 logger=jsonl device.compile=false device.task_chunk=1 device.threads=1"
    trained, refused = commands(
        installation, f"{words} device.kernels=auto hydra.run.dir=run", f"{words} device.kernels={C} hydra.run.dir=other"
    )
    assert trained[0] == 0, trained[1]
    assert (installation / "run" / "checkpoints" / "last.pt").exists()
    assert "not used: this installation has none" in (installation / "run" / "metarun.log").read_text()
    assert refused[0] == 2
    (line,) = refused[1].strip().splitlines()
    assert "this installation has none; use device.kernels=torch" in line
