"""Random crops, policies, color jitter and erasing: torchvision's results, and the same ones wherever they are made."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from poolzoo.data.augment import color_jitter, crops, draws, erasing, policy
from poolzoo.data.augment.augmentation import Augmentation, EpochParams
from poolzoo.data.augment.draws import Purpose
from poolzoo.data.augment.options import Policy, parse_crop_scale, parse_policy
from poolzoo.data.batches import BatchLoader, Rank

CPU = torch.device("cpu")
EVERYTHING = Augmentation(
    flip="random", cutout=3, crop_scale=(0.3, 1.0), policy=Policy("rand", 2, 12), color_jitter=0.4, erasing=0.5
)
TIES = 0.02  # of the pixels: their place lies between two of the image's, and rounding decides


def photographs(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colors with a little noise, in a part of the range, `uint8[n, H, W, 3]`."""
    generator = np.random.default_rng(seed)
    coarse = torch.from_numpy(generator.random((count, 3, 5, 5)))
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear").permute(0, 2, 3, 1).numpy()
    return np.clip(30 + 190 * smooth + generator.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def planes(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


@pytest.mark.parametrize(("given", "peer"), [("trivial", v2.TrivialAugmentWide()), ("rand:2,9", v2.RandAugment())])
def test_policies_are_torchvisions(given, peer):
    """Every operator at every magnitude and sign, as torchvision applies it to one image at a time."""
    count, chosen = (1500, parse_policy(given)) if given == "trivial" else (200, parse_policy(given))
    images = np.repeat(photographs(5, 33, 47), count // 5, 0)
    positions = np.arange(count) * 7
    made = policy.distort(torch.from_numpy(images.copy()), chosen, seed=3, epoch=2, positions=positions)
    space, seen = peer._AUGMENTATION_SPACE, set()
    names = list(space)
    drawn = draws.uniform(3, 2, Purpose.POLICY, positions, 3 * chosen.operators)
    for image, result, numbers in zip(planes(images), planes(made.numpy()), drawn, strict=True):
        expected, moved = image, False
        for which, level, sign in numbers.reshape(-1, 3):
            name = names[int(which * 14)]
            magnitudes, signed = space[name]
            values = magnitudes(31, 33, 47)
            step = int(level * 31) if chosen.magnitude is None else chosen.magnitude
            value = 0.0 if values is None else float(values[step])
            negative = signed and sign <= 0.5
            seen.add((name, step if values is not None else 0, negative))
            expected = peer._apply_image_or_video_transform(
                expected, name, -value if negative else value, interpolation=v2.InterpolationMode.NEAREST, fill={}
            )
            moved |= name in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
        distance = (expected.int() - result.int()).abs()
        if chosen.operators == 1 and not moved:
            assert distance.max() <= 1, names[int(numbers[0] * 14)]
        else:
            assert (distance.amax(0) > 4).float().mean() <= TIES, (names, numbers)
    assert {name for name, _, _ in seen} == set(names)
    if given == "trivial":
        assert len(seen) > 0.7 * (9 * 31 * 2 + 2 * 31 + 3)


def test_color_jitter_is_torchvisions():
    images, positions = photographs(60, 20, 24), np.arange(60)
    made = color_jitter.jitter(torch.from_numpy(images.copy()), 0.4, seed=1, epoch=1, positions=positions)
    drawn = draws.uniform(1, 1, Purpose.COLOR_JITTER, positions, 6)
    changes = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)
    for image, result, numbers in zip(planes(images), planes(made.numpy()), drawn, strict=True):
        for which in np.argsort(numbers[3:]):
            image = changes[which](image, 0.6 + 0.8 * numbers[which])
        assert (image.int() - result.int()).abs().max() <= 3  # one level of each change, times the later ones
    assert (np.abs(made.numpy().astype(int) - images).mean((1, 2, 3)) > 4).mean() > 0.8


def test_erasing_fills_boxes_of_torchvisions_sizes():
    size, count, color = (40, 60), 4000, np.array([9, 8, 7], np.uint8)
    edges = erasing.boxes(0.25, size, seed=5, epoch=3, positions=np.arange(count))
    top, bottom, left, right = edges[edges.any(1)].T
    assert 0.22 < len(top) / count < 0.28
    assert top.min() == left.min() == 0
    assert (bottom.max(), right.max()) == size
    theirs = [v2.RandomErasing(p=1).make_params([torch.empty(3, *size)]) for _ in range(1000)]
    for ours, name in ((bottom - top, "h"), (right - left, "w")):
        expected = np.array([one[name] for one in theirs])
        assert np.quantile(ours, [0.1, 0.5, 0.9]) == pytest.approx(np.quantile(expected, [0.1, 0.5, 0.9]), rel=0.15)
    images = photographs(30, *size)
    made = erasing.erase(torch.from_numpy(images.copy()), edges[:30], color).numpy()
    for image, (y0, y1, x0, x1) in zip(images, edges, strict=False):
        image[y0:y1, x0:x1] = color
    np.testing.assert_array_equal(made, images)


def test_random_crops_are_torchvisions_on_every_device():
    images = photographs(12, 37, 52)
    sampler = crops.CropSampler((0.1, 1.0), (3 / 4, 4 / 3), seed=2, epoch=1)
    boxes = np.array([sampler.box(position, (37, 52)) for position in range(12)])
    host = crops.random_crops_array(images, boxes)
    device = crops.random_crops_tensor(torch.from_numpy(images), torch.from_numpy(boxes)).numpy()
    for image, box, *made in zip(planes(images), boxes.tolist(), host, device, strict=True):
        expected = tv.resized_crop(image, *box, size=[37, 52], antialias=True).permute(1, 2, 0).numpy()
        for one in made:
            assert np.abs(one.astype(int) - expected).max() <= 1


def test_crops_of_neighbors_share_no_numbers():
    """With such ratios most first tries fail, so that shared numbers would give shared boxes."""
    sampler = crops.CropSampler((0.5, 1.0), (0.3, 3.3), seed=0, epoch=1)
    boxes = [sampler.box(position, (4000, 4000)) for position in range(300)]
    assert len(set(boxes)) > 270


def test_numbers_are_philox():
    """The known answers that Random123 publishes for philox4x32-10."""
    zeros, ones = np.zeros(4, np.uint64), np.full(4, 2**32 - 1, np.uint64)
    pi = np.array([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], np.uint64)
    answers = {
        (0, 0): (zeros, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (2**32 - 1, 2**32 - 1): (ones, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (0xA4093822, 0x299F31D0): (pi, "d16cfe09 94fdcceb 5001e420 24126ea1"),
    }
    for key, (counter, answer) in answers.items():
        assert " ".join(f"{word:08x}" for word in draws.philox(counter, key).tolist()) == answer


def test_numbers_depend_on_every_argument():
    positions = np.array([0, 1, 5, 70_000])
    base = draws.uniform(1, 2, Purpose.POLICY, positions, 9)
    assert base.shape == (4, 9)
    assert len(np.unique(base)) == 36
    np.testing.assert_array_equal(draws.uniform(1, 2, Purpose.POLICY, positions[2:], 9), base[2:])
    for other in ((2, 2, Purpose.POLICY), (1, 3, Purpose.POLICY), (1, 2, Purpose.ERASING)):
        assert not np.isin(draws.uniform(*other, positions, 9), base).any()
    many = draws.uniform(7, 1, Purpose.COLOR_JITTER, np.arange(20_000), 3)
    assert np.histogram(many, 10, (0, 1))[0] / many.size == pytest.approx(0.1, abs=0.005)
    assert np.abs(np.corrcoef(many.T) - np.eye(3)).max() < 0.03


def served(batch: int, rank: Rank | None = None, **changes: object) -> BatchLoader:
    images = photographs(48, 20, 20)
    given = {"augmentation": EVERYTHING, "seed": 4, **changes}
    return BatchLoader(images, np.arange(48), batch, device=CPU, rank=rank or Rank(), **given)


def by_label(loader: BatchLoader, epoch: int) -> dict[int, bytes]:
    return {
        int(label): image.numpy().tobytes()
        for batch in loader.epoch(epoch)
        for image, label in zip(batch.images, batch.labels, strict=True)
    }


def test_an_image_looks_the_same_in_every_batch_and_process():
    alone = by_label(served(12), 1)
    assert by_label(served(16), 1) == alone
    assert (
        by_label(served(12, Rank(0, 3)), 1) | by_label(served(12, Rank(1, 3)), 1) | by_label(served(12, Rank(2, 3)), 1)
        == alone
    )
    assert not set(by_label(served(12), 2).values()) & set(alone.values())
    assert not set(by_label(served(12, seed=5), 1).values()) & set(alone.values())


def test_a_resumed_epoch_continues_with_the_same_images():
    whole = list(served(12).epoch(3))
    for late, expected in zip(served(12).epoch(3, start=2), whole[2:], strict=True):
        assert torch.equal(late.images, expected.images)


def test_augmentation_runs_on_a_gpu_without_waiting():
    """With fake CUDA tensors, which need no GPU: an operator that waits for the device, or leaves it, would raise."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    from poolzoo.data.augment import color, warp

    with FakeTensorMode():
        images = torch.empty(6, 9, 8, 3, dtype=torch.uint8, device="cuda")
        factor, byte = torch.empty(6, device="cuda"), torch.empty(6, dtype=torch.uint8, device="cuda")
        made = [operator(images, factor) for operator in (color.brightness, color.saturation, color.contrast)]
        made += [color.sharpness(images, factor), color.posterize(images, byte), color.solarize(images, byte)]
        made += [color.autocontrast(images), color.equalize(images)]
        made += [warp.warp(images, torch.empty(6, 2, 3, device="cuda"))]
        made += [crops.random_crops_tensor(images, torch.empty(6, 4, dtype=torch.int64, device="cuda"))]
    assert {(one.device.type, one.shape, one.dtype) for one in made} == {("cuda", images.shape, torch.uint8)}


@pytest.mark.gpu
def test_a_gpu_augments_as_a_cpu_does():
    """Without waiting for the device, and with the same pixels but for rounding."""
    loader = BatchLoader(photographs(48, 20, 20), np.arange(48), 12, EVERYTHING, 4, torch.device("cuda"))
    list(loader.epoch(1))  # the mean color, and kernels that are loaded when they first run
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = list(loader.epoch(2))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for batch, expected in zip(found, served(12).epoch(2), strict=True):
        distance = (batch.images.cpu().int() - expected.images.int()).abs().float()
        assert torch.equal(batch.labels.cpu(), expected.labels)
        assert distance.mean(dim=(1, 2, 3)).median() < 1
        assert (distance > 8).float().mean() < TIES


def test_covered_parts_have_the_mean_color_after_every_change():
    loader = served(48, augmentation=Augmentation(cutout=7, policy=Policy("trivial"), color_jitter=0.9))
    params = EpochParams.sample(48, (20, 20), loader.augmentation, seed=4, epoch=1)
    (batch,) = loader.epoch(1)
    for image, position in zip(batch.images.numpy(), batch.labels.tolist(), strict=True):
        y, x = params.centers[position]
        assert (image[y, x] == loader.images.mean_color).all()


def test_options_are_parsed_or_refused():
    assert [str(parse_policy(text)) for text in ("trivial", "rand", "rand:3,30")] == [
        "trivial",
        "rand:2,9",
        "rand:3,30",
    ]
    assert parse_policy("none") is parse_crop_scale("none") is None
    assert parse_crop_scale("0.08,1") == (0.08, 1.0)
    for parse, text in (
        *((parse_policy, text) for text in ("", "rand:", "rand:0,9", "rand:2", "rand:2,31", "auto:1,2", "trivial:1")),
        *((parse_crop_scale, text) for text in ("", "1", "0,1", "0.5,0.2", "0.5,1.1", "a,b", "nan,1")),
    ):
        with pytest.raises(ValueError, match=r".*"):
            parse(text)
