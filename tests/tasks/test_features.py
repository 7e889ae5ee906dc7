"""Features: embeddings in the place of images, in the same episodes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from small import Lines, few_shot
from torch import Tensor, nn

from metarun.errors import UserError
from metarun.tasks import features as module_of_features
from metarun.tasks.features import Embedder, features
from metarun.tasks.fingerprint import differences
from metarun.tasks.pool import ClassPool
from metarun.tasks.sampling import FewShot


class Sums(nn.Module):
    """Sums of the pixels in each of the rows, (B, 8), times a weight."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return self.weight * x.sum(dim=(1, 3))


def embedder(weight: float = 1.0) -> Embedder:
    return Embedder(Sums(weight), 8, "Sums")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("sampling", [{}, {"min_ways": 2, "min_shots": 1}, {"train_labels": "global"}])
def test_episodes_have_the_embeddings_of_the_images_that_the_image_source_deals(sampling: dict[str, Any]) -> None:
    images = few_shot(**sampling)
    source = features(images=images, backbone=embedder(), batch_size=7)
    for split in ("train", "val", "test"):
        for of_images, of_features in zip(images.episode(split, 3), source.episode(split, 3), strict=True):
            torch.testing.assert_close(of_features.x, of_images.x.sum(dim=(1, 3)))
            assert torch.equal(of_features.y, of_images.y)
            assert (of_features.mask is None) if of_images.mask is None else torch.equal(of_features.mask, of_images.mask)
    assert source.classes == images.classes
    assert source.origins("test") == images.origins("test")
    assert source.population("test") == images.population("test")


def test_the_sampling_of_the_features_replaces_that_of_the_images() -> None:
    source = features(images=few_shot(ways=3, shots=2), backbone=embedder(), ways=5, shots=1, seed=4)
    expected = few_shot(ways=5, shots=1, seed=4).episode("train", 0)
    torch.testing.assert_close(source.episode("train", 0).support.x, expected.support.x.sum(dim=(1, 3)))


def test_embeddings_are_computed_once_and_again_for_other_weights_pixels_or_inputs() -> None:
    first, again, other = embedder(), embedder(), embedder(2.0)
    features(images=few_shot(), backbone=first)
    assert first.module.seen == 3 * 90  # type: ignore[comparison-overlap]
    kept = features(images=few_shot(ways=4, seed=9), backbone=again)
    assert again.module.seen == 0, "the sampling changes no image"  # type: ignore[comparison-overlap]
    changed = features(images=few_shot(), backbone=other)
    assert other.module.seen == 3 * 90  # type: ignore[comparison-overlap]
    torch.testing.assert_close(changed.pools["val"].images, 2.0 * kept.pools["val"].images)
    assert dataclasses.replace(embedder(), facts={"mean": [0.5]}).digest != first.digest
    darker = few_shot()
    darker.pools["val"].images[5, 0, 0, 0] ^= 1
    features(images=darker, backbone=again)
    assert again.module.seen == 90, "of the split with another pixel"  # type: ignore[comparison-overlap]


def test_splits_that_share_one_tensor_share_its_embeddings() -> None:
    pixels = torch.randint(0, 256, (30, 1, 8, 8), dtype=torch.uint8)
    pools = {split: ClassPool(pixels, [5, 5], ["a", "b"], rows=torch.arange(start, start + 10)) for split, start in
             (("train", 0), ("val", 10), ("test", 20))}  # fmt: skip
    backbone = embedder()
    source = features(images=FewShot(pools, ways=2, queries=2), backbone=backbone)
    assert backbone.module.seen == 30  # type: ignore[comparison-overlap]
    assert source.pools["train"].images is source.pools["test"].images
    torch.testing.assert_close(source.pools["test"].values(torch.tensor([0, 9])), pixels[[20, 29]].sum(dim=(1, 3)) / 255.0)


def test_the_fingerprint_has_the_images_and_the_weights() -> None:
    before, now = (features(images=few_shot(), backbone=embedder(weight)).fingerprint() for weight in (1.0, 2.0))
    assert differences(before, before) == []
    assert differences(before, now) == ["the weights of the backbone of the features differ"]
    smaller = features(images=few_shot(side=4), backbone=Embedder(Sums(), 4, "Sums")).fingerprint()
    assert "images or classes differ" in differences(before, smaller)


def test_a_source_without_images_and_values_that_are_not_finite_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"task\.images gives a Lines; task=features needs a source of images in classes"):
        features(images=Lines(), backbone=embedder())
    with pytest.raises(UserError, match=r"backbone Sums gives values that are not finite for image 0"):
        features(images=few_shot(), backbone=embedder(float("nan")))


def test_a_changed_computation_gets_another_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the cache only: the features of a checkpoint stay usable after an update of torch or an edit of the module's code."""
    before, weights = embedder().digest, embedder().weights
    for name in ("_RECIPE", "_code_of"):
        with monkeypatch.context() as patch:
            patch.setattr(module_of_features, name, 99 if name == "_RECIPE" else lambda kind: "other code")
            assert embedder().digest != before
            assert embedder().weights == weights
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "99")
        assert embedder().digest != before
