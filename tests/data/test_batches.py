"""Batches: shifted, mirrored, painted over and mixed as brute force does it; the same on the host and on the device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poolzoo.data.augment import augmentation as augment
from poolzoo.data.augment.augmentation import NO_AUGMENTATION, Augmentation, EpochParams, MixParams
from poolzoo.data.batches import BatchLoader, Rank
from poolzoo.data.statistics import channel_statistics

CPU = torch.device("cpu")


USUAL = Augmentation(2, "random")


def served(count=50, size=8, batch=10, augmentation=USUAL, seed=0, **rest):
    pixels = np.random.default_rng(1).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return pixels, BatchLoader(pixels, np.arange(count), batch, augmentation, seed, CPU, **rest)


def whole(given: BatchLoader, number: int) -> dict[int, bytes]:
    """Every image of an epoch by its index."""
    return {
        int(label): image.numpy().tobytes()
        for batch in given.epoch(number)
        for image, label in zip(batch.images, batch.labels, strict=True)
    }


def test_without_augmentation_every_image_comes_once():
    pixels, given = served(augmentation=NO_AUGMENTATION)
    seen = []
    for batch in given.epoch(1):
        np.testing.assert_array_equal(batch.images.numpy(), pixels[batch.labels.numpy()])
        seen += batch.labels.tolist()
    assert sorted(seen) == list(range(50))
    assert seen != list(range(50))


def test_every_augmented_image_is_a_mirrored_shift_of_its_original():
    """Brute force: each image must be one of the 2 × 25 that numpy's reflect padding, a crop and a flip can make."""
    pixels, given = served()
    kinds = set()
    for batch in given.epoch(3):
        for image, index in zip(batch.images.numpy(), batch.labels.tolist(), strict=True):
            made = {}
            for mirrored in (False, True):
                padded = np.pad(
                    pixels[index][:, ::-1] if mirrored else pixels[index], ((2, 2), (2, 2), (0, 0)), "reflect"
                )
                made |= {(y, x, mirrored): padded[y : y + 8, x : x + 8] for y in range(5) for x in range(5)}
            found = [kind for kind, candidate in made.items() if np.array_equal(candidate, image)]
            assert len(found) == 1
            kinds |= set(found)
    assert len(kinds) > 25
    assert {kind[2] for kind in kinds} == {False, True}


@pytest.mark.parametrize(("size", "most"), [((8, 8), 2), ((5, 9), 4), ((3, 4), 0), ((6, 6), 5)])
def test_the_device_does_what_the_host_does(size, most):
    generator = np.random.default_rng(most)
    pixels = generator.integers(0, 256, (40, *size, 3), dtype=np.uint8)
    most = min(most, min(size) - 1)
    shifts, mirrored = generator.integers(-most, most + 1, (40, 2)), generator.random(40) < 0.5
    host = augment.flip_and_shift_array(pixels.copy(), shifts, mirrored)
    device = augment.flip_and_shift_tensor(*(torch.from_numpy(a) for a in (pixels, shifts, mirrored)))
    np.testing.assert_array_equal(host, device.numpy())


def test_an_epoch_is_reproducible_and_differs_from_the_others():
    _, given = served()
    first, again, second = (torch.cat([batch.images.flatten() for batch in given.epoch(n)]) for n in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_an_epoch_can_be_taken_up_in_its_middle():
    _, given = served(augmentation=Augmentation(2, "random", cutout=3, mixup=0.3, cutmix=1.0))
    rest = list(given.epoch(2))[3:]
    for late, expected in zip(given.epoch(2, start=3), rest, strict=True):
        assert torch.equal(late.images, expected.images)
        assert torch.equal(late.labels, expected.labels)
        assert late.label_weight == expected.label_weight


def test_augmentation_does_not_depend_on_the_batch_size():
    assert whole(served(batch=5)[1], 1) == whole(served(batch=25)[1], 1)


def test_alternating_flips_show_both_forms_within_two_epochs():
    draws = [
        EpochParams.sample(1000, (8, 8), Augmentation(flip="alternating"), 3, epoch).flipped for epoch in (1, 2, 3)
    ]
    np.testing.assert_array_equal(draws[0], ~draws[1])
    np.testing.assert_array_equal(draws[0], draws[2])
    assert 400 < draws[0].sum() < 600
    random = [EpochParams.sample(1000, (8, 8), Augmentation(flip="random"), 3, epoch).flipped for epoch in (1, 2)]
    assert 400 < (random[0] ^ random[1]).sum() < 600


def test_a_cutout_is_one_square_of_the_mean_color():
    pixels, given = served(augmentation=Augmentation(cutout=3), count=200, batch=200)
    (batch,) = given.epoch(1)
    mean = np.rint(pixels.mean((0, 1, 2)))
    full = 0
    for image, index in zip(batch.images.numpy(), batch.labels.tolist(), strict=True):
        rows, columns = np.nonzero((image != pixels[index]).any(-1))
        assert rows.max() - rows.min() < 3
        assert columns.max() - columns.min() < 3
        assert (image[rows, columns] == mean).all()
        full += len(rows) == 9
    assert 50 < full < 150  # 6/8 squared of the centers leave the square whole


def test_mixtures_are_timms(monkeypatch):
    """The same weight and box as timm's Mixup: its images, and the loss for its soft targets."""
    from timm.data import mixup as timms
    from torch.nn import functional as F

    from poolzoo.train.loaders import TrainingBatch
    from poolzoo.train.losses import CrossEntropy

    pixels = np.random.default_rng(0).integers(0, 256, (16, 12, 12, 3), dtype=np.uint8)
    logits = torch.randn(16, 7, generator=torch.Generator().manual_seed(0))
    for kind in ("mixup", "cutmix"):
        augmentation = Augmentation(**{kind: 0.8})
        (batch,) = BatchLoader(pixels, np.arange(16) % 7, 16, augmentation, 5, CPU).epoch(4)
        mix = MixParams.sample(augmentation, (12, 12), (5, 4, 0))
        order = EpochParams.sample(16, (12, 12), augmentation, 5, 4).order
        alphas = {"mixup_alpha": 0.0, "cutmix_alpha": 0.0, f"{kind}_alpha": 0.8}  # timm draws one of two by chance
        theirs = timms.Mixup(**alphas, label_smoothing=0.1, num_classes=7)
        monkeypatch.setattr(np.random, "beta", lambda *_, mix=mix: mix.weight)  # from which timm draws its weight
        monkeypatch.setattr(timms, "cutmix_bbox_and_lam", lambda *_, mix=mix, **__: (mix.box, mix.weight))
        images = torch.from_numpy(pixels[order]).permute(0, 3, 1, 2).float()
        mixed, targets = theirs(images, torch.from_numpy(order % 7))
        torch.testing.assert_close(batch.images.permute(0, 3, 1, 2).float(), mixed, atol=1e-3, rtol=0)
        (part,) = TrainingBatch({"x": logits}, batch.labels, batch.mixed_labels, batch.label_weight).split("x", 1)
        soft = F.cross_entropy(logits, targets.to(logits.device))
        torch.testing.assert_close(CrossEntropy(label_smoothing=0.1).loss(logits, part), soft, atol=1e-5, rtol=1e-5)


def test_a_box_has_the_area_that_the_weight_says():
    weights = []
    for step in range(300):
        mix = MixParams.sample(Augmentation(mixup=0.2, cutmix=1.0), (32, 24), (0, 1, step))
        weights.append(mix.weight)
        if mix.box is not None:
            top, bottom, left, right = mix.box
            assert 0 <= top <= bottom <= 32
            assert 0 <= left <= right <= 24
            assert mix.weight == pytest.approx(1 - (bottom - top) * (right - left) / (32 * 24))
    kinds = [MixParams.sample(Augmentation(mixup=0.2, cutmix=1.0), (32, 24), (0, 1, s)).box is None for s in range(300)]
    assert 100 < sum(kinds) < 200
    assert len(set(weights)) > 200


@pytest.mark.parametrize("augmentation", [Augmentation(2, "random"), Augmentation(1, "random", mixup=0.5, cutmix=0.5)])
def test_two_processes_share_what_one_would_see(augmentation):
    _, alone = served(augmentation=augmentation)
    shares = [served(augmentation=augmentation, rank=Rank(rank, 2))[1] for rank in (0, 1)]
    for together, *parts in zip(alone.epoch(1), *(given.epoch(1) for given in shares), strict=True):
        merged = torch.empty_like(together.images)
        for rank, part in enumerate(parts):
            merged[rank::2] = part.images
            assert torch.equal(part.labels, together.labels[rank::2])
            assert part.label_weight == together.label_weight
            if together.mixed_labels is not None:
                assert torch.equal(part.mixed_labels, together.mixed_labels[rank::2])
        assert torch.equal(merged, together.images)


def test_only_the_chosen_images_are_served():
    pixels, _ = served()
    chosen = np.array([3, 7, 8, 20, 41, 49])
    given = BatchLoader(pixels, np.arange(50), 3, NO_AUGMENTATION, 0, CPU, indices=chosen)
    assert {label: pixels[label].tobytes() for label in chosen.tolist()} == whole(given, 1)


def test_an_augmented_batch_can_be_made_on_a_gpu():
    """With fake CUDA tensors, which need no GPU: one left on the CPU would raise."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        images = torch.empty(4, 8, 8, 3, dtype=torch.uint8, device="cuda")
        shifts = torch.empty(4, 2, dtype=torch.int64, device="cuda")
        made = augment.flip_and_shift_tensor(images, shifts, torch.empty(4, dtype=torch.bool, device="cuda"))
        mixed = MixParams(0.3, None).apply(made, made)
    assert made.device.type == mixed.device.type == "cuda"
    assert made.shape == (4, 8, 8, 3)


def test_statistics_are_numpys():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 6, 3), dtype=np.uint8)
    for chosen in (None, np.array([1, 4, 6])):
        part = pixels if chosen is None else pixels[chosen]
        found = channel_statistics(pixels, chosen)
        np.testing.assert_allclose(found.mean, (part / 255).mean((0, 1, 2)), atol=1e-6)
        np.testing.assert_allclose(found.std, (part / 255).std((0, 1, 2)), atol=1e-6)
