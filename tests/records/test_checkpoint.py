"""Checkpoints: round trip, atomicity, and everything that can be wrong with a file."""

from __future__ import annotations

import dataclasses
import os
import pickle
import random
import subprocess
import sys
import textwrap
from collections import OrderedDict
from pathlib import Path
from unittest.mock import ANY

import numpy
import pytest
import torch
from hostile_files import digest_of

from metarun.errors import UserError
from metarun.records import checkpoint
from metarun.records.checkpoint import Checkpoint, load, resolve, save, snapshot
from metarun.records.content import digest


def make(step: int = 3, **changes: object) -> Checkpoint:
    weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0]]))
    adam = torch.optim.Adam([weight])
    weight.grad = torch.ones_like(weight)
    adam.step()
    whole = Checkpoint(
        step=step,
        params={"head.weight": weight},
        state={"running.mean": torch.tensor([0.5], dtype=torch.float64), "count": torch.tensor(7)},
        optimizer=adam.state_dict(),
        best={"score": 0.93, "mean": 0.9, "step": 2},
        window={"train/loss": 1.25, "steps": 4},
        config={"algo": {"_target_": "metarun.algorithms.maml.Maml", "inner_lr": 0.4, "adapts": ["*"]}, "name": "${oc.env:HOME}"},
        execution={"chunk": 8, "threads": 2, "torch": "2.13.0"},
    )
    return dataclasses.replace(whole, **changes)


def sentence(call: object, *arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)  # type: ignore[operator]
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    before = make()
    save(tmp_path / "last.pt", before)
    after = load(tmp_path / "last.pt")
    torch.testing.assert_close(after.params["head.weight"], before.params["head.weight"].detach(), rtol=0, atol=0)
    assert after.state["running.mean"].dtype == torch.float64
    assert after.optimizer["param_groups"] == before.optimizer["param_groups"]
    torch.testing.assert_close(after.optimizer["state"][0], before.optimizer["state"][0], rtol=0, atol=0)
    for name in ("step", "best", "window", "config", "execution", "version", "format"):
        assert getattr(after, name) == getattr(before, name)


def test_an_interpolation_in_the_config_stays_text(tmp_path: Path) -> None:
    save(tmp_path / "last.pt", make())
    assert load(tmp_path / "last.pt").config["name"] == "${oc.env:HOME}"


def test_what_torch_calls_a_parameter_comes_back_as_a_plain_tensor(tmp_path: Path) -> None:
    save(tmp_path / "last.pt", make())
    weight = load(tmp_path / "last.pt").params["head.weight"]
    assert type(weight) is torch.Tensor
    assert not weight.requires_grad


def test_a_view_does_not_take_the_tensor_behind_it_along(tmp_path: Path) -> None:
    large = torch.arange(1_000_000.0)
    save(tmp_path / "last.pt", make(params={"w": large[:3]}))
    assert (tmp_path / "last.pt").stat().st_size < 50_000
    assert load(tmp_path / "last.pt").params["w"].tolist() == [0.0, 1.0, 2.0]


CHANNELS_LAST = [(4, 3, 2, 2), (64, 1, 3, 3), (5, 4, 1, 1), (1, 7, 3, 2)]
"""Shapes of convolutions; with a length of 1 several strides describe one layout, and the one that there was must come back."""


def channels_last(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.empty(shape).to(memory_format=torch.channels_last).copy_(torch.randn(shape))


@pytest.mark.parametrize("shape", CHANNELS_LAST)
def test_channels_last_tensors_and_their_moments_come_back_with_the_same_strides_and_bits(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """A fused optimizer walks through memory, so a resumed run repeats to the last bit only if the layout does."""
    weight = channels_last(shape).requires_grad_()
    adam = torch.optim.Adam([weight], fused=True)
    weight.grad = torch.randn_like(weight)
    adam.step()
    before = make(params={"w": weight}, optimizer=adam.state_dict())
    for name, saved in (("now.pt", before), ("copied.pt", snapshot(before))):
        save(tmp_path / name, saved)
        after = load(tmp_path / name)
        moments = adam.state[weight]
        pairs = [
            (after.params["w"], weight),
            *((after.optimizer["state"][0][key], moments[key]) for key in ("exp_avg", "exp_avg_sq", "step")),
        ]
        for ours, theirs in pairs:
            assert ours.stride() == theirs.stride()
            assert torch.equal(ours, theirs)


def test_a_channels_last_tensor_takes_no_more_room_than_any_other(tmp_path: Path) -> None:
    for name, weight in (("last", channels_last((64, 64, 3, 3))), ("first", torch.randn(64, 64, 3, 3))):
        save(tmp_path / name, make(params={"w": weight}))
    assert (tmp_path / "last").stat().st_size == (tmp_path / "first").stat().st_size


def test_a_snapshot_does_not_follow_what_changes_in_place() -> None:
    """As the next step changes parameters, moments and statistics."""
    run = make()
    taken = snapshot(run)
    live = [run.params["head.weight"], run.state["count"], run.optimizer["state"][0]["exp_avg"]]
    kept = [taken.params["head.weight"], taken.state["count"], taken.optimizer["state"][0]["exp_avg"]]
    were = [tensor.detach().clone() for tensor in live]
    with torch.no_grad():
        for tensor in live:
            tensor.add_(1)
    run.window["train/loss"] = 0.0
    run.config["algo"]["adapts"].append("more")
    for ours, theirs in zip(kept, were, strict=True):
        assert torch.equal(ours, theirs)
    assert (taken.window["train/loss"], taken.config["algo"]["adapts"]) == (1.25, ["*"])


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (numpy.float64(1.0), "window.loss"),
        (Path("x"), "window.loss"),
        (OrderedDict(a=1), "window.loss"),
        ([1, {2}], r"window.loss\[1\]"),
        ({(1, 2): 3}, "window.loss has the key"),
        (torch.zeros(2).to_sparse(), "window.loss is not a dense tensor"),
    ],
)
def test_what_is_not_plain_is_refused_when_it_is_saved(tmp_path: Path, value: object, place: str) -> None:
    with pytest.raises(TypeError, match=place):
        save(tmp_path / "last.pt", make(window={"loss": value}))
    assert list(tmp_path.iterdir()) == []


def test_saving_last_keeps_the_one_before_as_previous(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path / "last.pt", make(step))
    assert load(tmp_path / "last.pt").step == 3
    assert load(tmp_path / "previous.pt").step == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "previous.pt"]


def test_saving_best_keeps_no_previous(tmp_path: Path) -> None:
    for step in (1, 2):
        save(tmp_path / "best.pt", make(step))
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]


def test_where_links_fail_previous_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    for step in (1, 2):
        save(tmp_path / "last.pt", make(step))
    assert (load(tmp_path / "previous.pt").step, load(tmp_path / "last.pt").step) == (1, 2)


def test_a_damaged_last_never_replaces_a_whole_previous(tmp_path: Path) -> None:
    for step in (1, 2):
        save(tmp_path / "last.pt", make(step))
    (tmp_path / "last.pt").write_bytes(b"PK half")
    save(tmp_path / "last.pt", make(3))
    assert (load(tmp_path / "previous.pt").step, load(tmp_path / "last.pt").step) == (1, 3)


@pytest.mark.parametrize("stop", range(4))
def test_a_write_interrupted_at_any_rename_leaves_a_whole_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    """The steps of a save that change names are: link, replace previous, unlink, replace last; the kill comes before number `stop`."""
    for step in (1, 2):
        save(tmp_path / "last.pt", make(step))
    calls = 0

    def killed_before(real: object) -> object:
        def call(*arguments: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls > stop:
                raise KeyboardInterrupt
            return real(*arguments, **options)  # type: ignore[operator]

        return call

    with monkeypatch.context() as patch:
        for name in ("link", "replace"):
            patch.setattr(os, name, killed_before(getattr(os, name)))
        if stop < 3:
            with pytest.raises(KeyboardInterrupt):
                save(tmp_path / "last.pt", make(3))
        else:
            save(tmp_path / "last.pt", make(3))
    assert load(tmp_path / "last.pt").step == (3 if stop == 3 else 2)
    save(tmp_path / "last.pt", make(4))
    assert load(tmp_path / "last.pt").step == 4
    assert load(tmp_path / "previous.pt").step == (3 if stop == 3 else 2)


def test_a_process_killed_while_saving_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import itertools, pathlib, sys, torch
        from metarun.records.checkpoint import Checkpoint, save
        for step in itertools.count(1):
            save(pathlib.Path(sys.argv[1]) / "last.pt", Checkpoint(step=step, params={"w": torch.zeros(100_000)}, state={}))
            print(step, flush=True)
    """)
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    saved = [int(process.stdout.readline()) for _ in range(5)]
    process.kill()
    saved += [int(line) for line in process.stdout.read().split()]
    process.wait()
    process.stdout.close()
    assert load(tmp_path / "last.pt").step >= saved[-1]
    assert load(tmp_path / "previous.pt").step >= saved[-1] - 1


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot write the checkpoint" in sentence(save, tmp_path / "file" / "last.pt", make())


def test_links_planted_among_the_checkpoints_overwrite_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run/checkpoints"
    folder.mkdir(parents=True)
    (tmp_path / "diary").write_text("mine")
    for name in (".last.pt.tmp", ".previous.pt.tmp", "last.pt", "previous.pt", "best.pt"):
        (folder / name).symlink_to(tmp_path / "diary")
    for name in ("last.pt", "last.pt", "best.pt"):
        save(folder / name, make(1))
    (tmp_path / "linked").symlink_to(folder)
    assert "linked is a link" in sentence(save, tmp_path / "linked/last.pt", make(2))
    assert (tmp_path / "diary").read_text() == "mine"
    assert {load(folder / name).step for name in ("last.pt", "previous.pt", "best.pt")} == {1}


def test_a_full_disk_is_a_sentence_and_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "last.pt", make(1))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "No space left on device" in sentence(save, tmp_path / "last.pt", make(2))
    assert load(tmp_path / "last.pt").step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused_and_the_whole_one_beside_it_named(tmp_path: Path, kept: float) -> None:
    for step in (1, 2):
        save(tmp_path / "last.pt", make(step))
    whole = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(whole[: int(kept * len(whole))])
    text = sentence(load, tmp_path / "last.pt")
    assert "damaged" in text
    assert text.endswith(f"metarun train resume={tmp_path / 'previous.pt'}")


def test_a_truncated_checkpoint_beside_a_damaged_one_names_none(tmp_path: Path) -> None:
    for name in ("last.pt", "previous.pt"):
        (tmp_path / name).write_bytes(b"PK half")
    assert "resume=" not in sentence(load, tmp_path / "last.pt")


def test_a_missing_last_names_previous(tmp_path: Path) -> None:
    save(tmp_path / "previous.pt", make(1))
    assert f"resume={tmp_path / 'previous.pt'}" in sentence(load, tmp_path / "last.pt")


def test_200_flipped_bits_are_each_noticed_or_change_nothing(tmp_path: Path) -> None:
    """A flip in the padding between the members of the archive, or in a date, changes nothing that is read."""
    path = tmp_path / "best.pt"
    save(path, make(params={"w": torch.arange(64.0)}))
    whole, noticed = path.read_bytes(), 0
    before = digest_of(load(path))
    places = random.Random(0)
    for number in range(200):
        flipped = bytearray(whole)
        flipped[number * len(whole) // 200 + places.randrange(len(whole) // 200)] ^= 1 << places.randrange(8)
        path.write_bytes(flipped)
        try:
            assert digest_of(load(path)) == before
        except UserError:
            noticed += 1
    assert noticed > 50


def test_every_flip_in_the_weights_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    weight = torch.arange(64.0)
    save(path, make(params={"w": weight}))
    whole = path.read_bytes()
    first = whole.index(weight.numpy().tobytes())
    for place in range(first, first + 256, 16):
        flipped = bytearray(whole)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        assert "damaged" in sentence(load, path)


@pytest.mark.parametrize(
    "noted",
    [
        {"by_family": 5},
        {"by_family": {"line": {"mean": 0.5}}},
        {"by_family": {"line": {"mean": 0.5, "ci95": "x"}}},
        {"by_family": {"line": {"mean": 0.5, "ci95": 0.1, "by_step": [None]}}},
        {"by_family": {1: {"mean": 0.5, "ci95": 0.1}}},
        {"by_target": {"price": {"rmse": 1.0, "mae": []}}},
    ],
)
def test_figures_of_families_and_targets_are_numbers(noted: dict[str, object], tmp_path: Path) -> None:
    best = {"score": 0.9, "mean": 0.9, "step": 2}
    figures = {"mean": 0.5, "ci95": 0.1, "by_step": [0.2, 0.5], "episodes": 3}
    sound = {"by_family": {"line": figures}, "by_target": {"price": {"rmse": 1.0, "mae": 1}}}
    save(tmp_path / "best.pt", dataclasses.replace(make(3), best={**best, **sound}))
    assert load(tmp_path / "best.pt").best == {**best, **sound}
    save(tmp_path / "best.pt", dataclasses.replace(make(3), best={**best, **noted}))
    with pytest.raises(UserError):
        load(tmp_path / "best.pt")


@pytest.mark.parametrize("part", ["params", "state", "optimizer", "best", "window", "config", "execution", "origins", "data", "step"])
def test_a_change_that_keeps_the_archive_s_checksums_breaks_the_digest(tmp_path: Path, part: str) -> None:
    """As a broken memory does between the computation of a tensor and its checksum in the archive."""
    stored = make(origins=["a"], data={"kind": "table"})
    content = checkpoint._content(stored)
    other = {"step": 4, "origins": ["b"], "best": None, "data": {}, "params": {"w": torch.zeros(1)}}.get(part, {"more": 1.0, "steps": 1})
    torch.save({**content, "digest": digest(content)}, tmp_path / "best.pt")
    assert load(tmp_path / "best.pt").step == 3
    if part == "state":
        other = {**content["state"], "count": torch.tensor(8)}
    torch.save({**content, part: other, "digest": digest(content)}, tmp_path / "best.pt")
    assert "its content does not match its digest" in sentence(load, tmp_path / "best.pt")


def test_a_file_of_the_format_before_is_read_without_a_digest(tmp_path: Path) -> None:
    content = checkpoint._content(make(format=2, version="0.0.9"))
    for name in ("data", "preparation", "shapes", "variance"):
        del content[name]
    torch.save(content, tmp_path / "best.pt")
    stored = load(tmp_path / "best.pt")
    assert (stored.step, stored.data, stored.format, stored.version) == (3, {}, 2, "0.0.9")
    save(tmp_path / "best.pt", dataclasses.replace(stored, format=checkpoint.FORMAT))
    assert load(tmp_path / "best.pt").format == checkpoint.FORMAT


def test_torch_reads_the_file_too(tmp_path: Path) -> None:
    save(tmp_path / "best.pt", make())
    content = torch.load(tmp_path / "best.pt", weights_only=True)
    assert content.keys() == {field.name for field in dataclasses.fields(Checkpoint)} | {"digest"}
    assert torch.equal(content["params"]["head.weight"], make().params["head.weight"].detach())


def damage(path: Path, kind: str) -> None:
    whole = path.read_bytes() if path.is_file() else b""
    contents = {"cut": whole[:-50], "zeros": bytes(len(whole)), "empty": b"", "text": b"notes", "zip": b"PK\x03\x04" + whole[4:2000]}
    if kind in contents:
        path.write_bytes(contents[kind])
    elif kind == "flipped":
        path.write_bytes(whole.replace(b"head.weight", b"head.weighu", 1))
    else:
        path.unlink()
        if kind == "folder":
            path.mkdir()


@pytest.mark.parametrize("kind", ["cut", "zeros", "empty", "text", "zip", "flipped", "missing", "folder"])
def test_previous_takes_the_place_of_a_damaged_last_and_the_note_says_so(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "run/checkpoints"
    for step in (1, 2):
        save(folder / "last.pt", make(step))
    assert checkpoint.find(tmp_path / "run", "last.pt") == (folder / "last.pt", ANY, None)
    damage(folder / "last.pt", kind)
    for name in (tmp_path / "run", folder, folder / "last.pt"):
        if name == folder / "last.pt" and kind in ("missing", "folder"):
            continue  # the user named a file that is not there
        found = checkpoint.find(name, "last.pt")
        assert (found.path, found.checkpoint.step) == (folder / "previous.pt", 1)
        assert found.note is not None
        assert "\n" not in found.note
        assert str(folder / "last.pt") in found.note
        assert found.note.endswith(" previous.pt (step 1) takes its place.")


def test_where_both_are_damaged_both_are_named(tmp_path: Path) -> None:
    for step in (1, 2):
        save(tmp_path / "last.pt", make(step))
    damage(tmp_path / "last.pt", "cut")
    damage(tmp_path / "previous.pt", "zeros")
    text = sentence(checkpoint.find, tmp_path / "last.pt")
    assert "last.pt is damaged" in text
    assert "previous.pt is not a checkpoint" in text
    assert "Intact" not in text
    save(tmp_path / "best.pt", make(1))
    assert "Intact in the same folder: best.pt (step 1)" in sentence(checkpoint.find, tmp_path / "last.pt")


def test_nothing_takes_the_place_of_a_file_that_could_run_code_or_is_newer(tmp_path: Path) -> None:
    save(tmp_path / "previous.pt", make())
    torch.save({"format": 3, "version": "0", "step": Hostile(tmp_path / "mark")}, tmp_path / "last.pt")
    assert "no code in it was run" in sentence(checkpoint.find, tmp_path / "last.pt")
    save(tmp_path / "best.pt", make(format=checkpoint.FORMAT + 1))
    (tmp_path / "best.pt").replace(tmp_path / "last.pt")
    assert "use the metarun that wrote the file" in sentence(checkpoint.find, tmp_path / "last.pt")


def test_a_damaged_best_names_the_intact_files_and_how_to_score_them(tmp_path: Path) -> None:
    for name, step in (("last.pt", 5), ("last.pt", 6), ("best.pt", 4), ("step_4.pt", 4), ("step_2.pt", 2)):
        save(tmp_path / name, make(step))
    damage(tmp_path / "best.pt", "zeros")
    damage(tmp_path / "step_4.pt", "cut")
    text = sentence(checkpoint.find, tmp_path / "best.pt")
    assert "last.pt (step 6) and step_2.pt (step 2) and previous.pt (step 5)" in text
    assert "step_4.pt" not in text
    assert text.endswith(f"go on with: metarun eval checkpoint={tmp_path / 'last.pt'}")


def test_the_version_in_a_file_is_printed_without_control_characters(tmp_path: Path) -> None:
    for version in ("\x1b[2J\x1b]0;x\x07", "1\n2\r3", "\u202e0.1\u2066", "\x9b31m"):
        save(tmp_path / "best.pt", make(format=99, version=version))
        assert all(letter.isprintable() for letter in sentence(load, tmp_path / "best.pt"))


class Hostile:
    """Pickles to a call of os.system that would leave a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path, zipped: bool) -> None:
    path, mark = tmp_path / "best.pt", tmp_path / "mark"
    torch.save({"format": checkpoint.FORMAT, "version": "0", "step": Hostile(mark)}, path, _use_new_zipfile_serialization=zipped)
    assert "no code in it was run" in sentence(load, path) or not zipped
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "the file would have run code, had it been let"


def test_a_bare_hostile_pickle_is_refused(tmp_path: Path) -> None:
    path, mark = tmp_path / "best.pt", tmp_path / "mark"
    path.write_bytes(pickle.dumps(Hostile(mark)))
    assert "is not a checkpoint of metarun" in sentence(load, path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"weight": torch.zeros(3)},
        {"format": checkpoint.FORMAT, "version": "0.1.0"},
        {"format": True, "version": "0.1.0"},
        {"format": checkpoint.FORMAT, "version": "0.1.0", "step": -1, "params": {}, "state": {}},
        {"format": checkpoint.FORMAT, "version": "0.1.0", "step": 1, "params": {"w": 3}, "state": {}},
        {"format": checkpoint.FORMAT, "version": "0.1.0", "step": 1, "params": {}, "state": {}, "config": [1]},
        {"format": checkpoint.FORMAT, "version": "0.1.0", "step": 1, "params": {}, "state": {}, "surprise": 1},
        {"format": checkpoint.FORMAT, "version": "0.1.0", "step": 1, "params": OrderedDict(), "state": {}},
    ],
)
def test_a_file_of_another_program_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "best.pt")
    assert "is not a checkpoint of metarun" in sentence(load, tmp_path / "best.pt")


def test_text_is_not_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_text("hello")
    assert "is not a checkpoint of metarun" in sentence(load, tmp_path / "best.pt")


def test_a_newer_format_names_both_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "best.pt", make(format=checkpoint.FORMAT + 1, version="9.9"))
    text = sentence(load, tmp_path / "best.pt")
    assert f"metarun 9.9 in format {checkpoint.FORMAT + 1}" in text
    assert f"reads the formats 2 to {checkpoint.FORMAT}" in text


def test_a_run_folder_means_its_best_and_for_resuming_its_last(tmp_path: Path) -> None:
    for name in ("best.pt", "last.pt"):
        save(tmp_path / "run" / "checkpoints" / name, make())
    assert resolve(tmp_path / "run") == tmp_path / "run/checkpoints/best.pt"
    assert resolve(str(tmp_path / "run"), "last.pt") == tmp_path / "run/checkpoints/last.pt"
    assert resolve(tmp_path / "run/checkpoints", "last.pt") == tmp_path / "run/checkpoints/last.pt"
    assert resolve(tmp_path / "run/checkpoints/last.pt") == tmp_path / "run/checkpoints/last.pt"


def test_a_run_that_stopped_before_its_first_validation_has_its_last_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    save(folder / "checkpoints" / "last.pt", dataclasses.replace(make(), best=None, step=37, config={"eval_every": 500}))
    found = checkpoint.find(folder)
    assert (found.path.name, found.checkpoint.step) == ("last.pt", 37)
    assert found.note == f"{folder} has no best.pt, since the run has not validated yet; its last.pt (step 37) takes its place."
    assert checkpoint.find(folder / "checkpoints" / "last.pt").note is None
    assert checkpoint.find(folder, "last.pt").note is None
    save(folder / "checkpoints" / "last.pt", dataclasses.replace(make(), best=None, step=1000, config={"eval_every": 500}))
    assert "since no validation was finite" in str(checkpoint.find(folder).note)
    save(folder / "checkpoints" / "last.pt", dataclasses.replace(make(), best=None, step=500, validates=True, config={"eval_every": 500}))
    assert "since the run has not validated yet" in str(checkpoint.find(folder).note)


def test_a_path_without_a_checkpoint_is_a_sentence_with_a_remedy(tmp_path: Path) -> None:
    assert "there is no checkpoint or run folder" in sentence(resolve, tmp_path / "nowhere")
    assert "there is no checkpoint or run folder" in sentence(checkpoint.find, "~nobody-has-this-name/run")
    assert "has no checkpoint in it" in sentence(resolve, tmp_path)
    save(tmp_path / "task-algo" / "run" / "checkpoints" / "last.pt", make())
    assert f"such as {tmp_path / 'task-algo' / 'run'}" in sentence(resolve, tmp_path, "last.pt")
