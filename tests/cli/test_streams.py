"""Lost and closed streams, and encodings with few letters, end no command."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from metarun.cli import streams
from metarun.cli.streams import READER_LEFT, SteadyFile, exit_code

SCRIPT = """
import sys
from metarun.cli.streams import exit_code, make_steady
make_steady()
for number in range(2000):
    print("result \\u00b1 \\u2026 M\\u00fcller \\udcff", number)
    print("progress \\u00b1", number, file=sys.stderr, flush=True)
open(sys.argv[1], "w").write("done")
sys.exit(exit_code(0, printed_only=len(sys.argv) > 2))
"""


@pytest.mark.parametrize(
    ("shell", "code"),
    [
        ("{python} -c {script} {done} 2>&1 | head -n 1 >&2; exit ${{PIPESTATUS[0]}}", 0),
        ("{python} -c {script} {done} list | head -n 1; exit ${{PIPESTATUS[0]}}", READER_LEFT),
        ("{python} -c {script} {done} >&- 2>&-", 0),
        ("{python} -c {script} {done} > /dev/full", 1),
        ("PYTHONIOENCODING=ascii {python} -c {script} {done}", 0),
        ("PYTHONUNBUFFERED=1 {python} -c {script} {done} 2>&1 | head -n 1 >&2; exit ${{PIPESTATUS[0]}}", 0),
    ],
)
def test_a_command_goes_on_to_its_end(tmp_path: Path, shell: str, code: int) -> None:
    if "/dev/full" in shell and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    environment = {**os.environ, "SCRIPT": SCRIPT}
    command = shell.format(python=f"'{sys.executable}'", script='"$SCRIPT"', done=tmp_path / "done")
    done = subprocess.run(["bash", "-c", command], capture_output=True, env=environment, check=False)
    assert (tmp_path / "done").read_text() == "done"
    assert done.returncode == code
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr
    if "ascii" in shell:
        assert done.stdout.splitlines()[1] == b"result +- ... M\\xfcller \\udcff 1"


def test_only_the_text_is_lost_after_an_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    file = SteadyFile(writing, "w")
    assert file.write(b"abc") == 3
    assert file.lost is not None
    assert file.lost.errno == errno.EPIPE
    assert file.write(b"more") == 4
    file.close()


def test_a_full_pipe_that_does_not_wait_loses_nothing() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    file, text = SteadyFile(writing, "w"), b"x" * 300_000
    received = bytearray()

    def read() -> None:
        while block := os.read(reading, 65536):
            received.extend(block)

    reader = threading.Thread(target=read)
    reader.start()
    rest = memoryview(text)
    while rest:
        rest = rest[file.write(rest) :]
    file.close()
    reader.join()
    os.close(reading)
    assert bytes(received) == text


def test_a_stream_that_something_else_replaced_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stand_in)
    monkeypatch.setattr(sys, "stderr", stand_in)
    streams.make_steady()
    assert sys.stdout is sys.stderr is stand_in
    assert exit_code(3, printed_only=True) == 3


def test_the_two_streams_keep_their_order_without_pythons_buffers(tmp_path: Path) -> None:
    """PYTHONUNBUFFERED=1 is usual in containers."""
    script = (
        "import sys; from metarun.cli.streams import make_steady; make_steady()\n"
        "for n in range(3): print('result', n); print('progress', n, file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True)
    assert done.stdout.decode().split() == [word for n in "012" for word in ("result", n, "progress", n)]
