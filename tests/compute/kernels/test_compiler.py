"""C compiled when it is wanted: kept for later, never half, and a reason in words where it does not work."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from forks import forked, kill, wait_for

from metarun.compute.kernels import compiler
from metarun.files.writing import PREFIX, remove_leftovers

needs_compiler = pytest.mark.skipif(
    sys.platform not in ("linux", "darwin") or not any(shutil.which(name) for name in compiler.COMPILERS), reason="needs a C compiler"
)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)


def source(folder: Path, text: str = "int twice(int x) { return 2 * x; }\n") -> Path:
    (folder / "twice.c").write_text(text)
    return folder / "twice.c"


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "cache" / "kernels").iterdir())


@needs_compiler
def test_a_library_is_compiled_once_for_each_text(tmp_path: Path):
    assert compiler.load(source(tmp_path)).twice(21) == 42
    (first,) = kept(tmp_path)
    made = first.stat().st_mtime_ns
    compiler.load(source(tmp_path))
    assert kept(tmp_path) == [first]
    assert first.stat().st_mtime_ns == made
    assert compiler.load(source(tmp_path, "int twice(int x) { return x + x + 1; }\n")).twice(21) == 43
    assert len(kept(tmp_path)) == 2


@needs_compiler
def test_a_library_is_compiled_again_where_a_header_beside_it_has_changed(tmp_path: Path):
    text = '#include "numbers.h"\nint number(void) { return NUMBER; }\n'
    for number in (3, 5):
        (tmp_path / "numbers.h").write_text(f"#define NUMBER {number}\n")
        assert compiler.load(source(tmp_path, text)).number() == number


@needs_compiler
def test_a_text_that_does_not_compile_leaves_nothing_and_says_what_the_compiler_said(tmp_path: Path):
    with pytest.raises(compiler.NoLibraryError, match=r"failed: .*twice\.c.*error"):
        compiler.load(source(tmp_path, "this is no C\n"))
    assert kept(tmp_path) == []


@needs_compiler
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "planted"])
def test_a_damaged_library_is_compiled_again_and_never_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str):
    compiler.load(source(tmp_path))
    (library,) = kept(tmp_path)
    whole = library.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 16]) + whole[middle + 1 :]
    library.write_bytes({"cut": whole[:middle], "flipped": flipped, "empty": b"", "planted": b"\x7fELF"}[damage])
    opened = []
    opener = compiler._opened
    monkeypatch.setattr(compiler, "_opened", lambda content, *rest: opened.append(content) or opener(content, *rest))
    assert compiler.load(source(tmp_path)).twice(4) == 8
    assert opened == [library.read_bytes()[32:]]


@needs_compiler
def test_a_library_is_loaded_from_a_copy_that_stays_whole_when_the_file_is_overwritten(tmp_path: Path):
    loaded = compiler.load(source(tmp_path))
    (library,) = kept(tmp_path)
    library.write_bytes(b"")
    assert loaded.twice(4) == 8


def test_a_compiler_command_that_is_not_valid_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CC", 'gcc "')
    with pytest.raises(compiler.NoLibraryError, match='CC=gcc " is not a valid command'):
        compiler.load(source(tmp_path))


def test_no_compiler_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(compiler.NoLibraryError, match=r"no C compiler \(cc, gcc, clang\)"):
        compiler.load(source(tmp_path))


def test_the_compiler_of_the_environment_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CC", "no-such-compiler -m64")
    with pytest.raises(compiler.NoLibraryError, match="no-such-compiler"):
        compiler.load(source(tmp_path))


def test_a_processor_without_the_vectors_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CC", "cc")
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "DEFAULT")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(compiler.NoLibraryError, match="a processor with DEFAULT"):
        compiler.load(source(tmp_path))


@needs_compiler
def test_without_a_cache_folder_the_library_is_compiled_for_this_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compiler, "private_folder", lambda _: None)
    assert compiler.load(source(tmp_path)).twice(4) == 8
    assert not (tmp_path / "cache").exists()


@needs_compiler
def test_a_cache_that_is_deleted_during_a_compilation_costs_a_second_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run, calls = subprocess.run, []

    def deleting(command: list[str], **options: Any) -> Any:
        calls.append(command)
        if len(calls) > 1:  # the first call asks for the compiler's version
            shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", deleting)
    assert compiler.load(source(tmp_path)).twice(4) == 8
    assert len(calls) == 3
    assert len(kept(tmp_path)) == 1


@needs_compiler
def test_a_kill_during_a_compilation_costs_only_the_compilation(tmp_path: Path):
    cache = tmp_path / "cache" / "kernels"
    for _ in range(2):
        child = forked(lambda: compiler.load(source(tmp_path)))
        wait_for(lambda: list(cache.glob(f"{PREFIX}*")))
        kill(child)
    assert compiler.load(source(tmp_path)).twice(21) == 42
    remove_leftovers(cache)
    assert len(kept(tmp_path)) == 1
