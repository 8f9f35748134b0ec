"""The automatic policies: each operation beside torchvision's and timm's, what is drawn, and who gets it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import timm.data.auto_augment as timm_policies
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode
from torchvision.transforms import v2 as theirs
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from lightning_vision.augmentation.auto_augment import POLICIES, AutoAugment
from lightning_vision.augmentation.policy import COLORS, MOVES, Policy
from lightning_vision.augmentation.rand_augment import RandAugment, operations
from lightning_vision.augmentation.trivial_augment import TrivialAugment

KINDS: dict[str, Callable[..., Policy]] = {
    "rand_augment": RandAugment,
    "trivial_augment": TrivialAugment,
    "auto_augment": AutoAugment,
}
IGNORED = 255


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(channels: int = 3, count: int = 24) -> tuple[Tensor, Tensor]:
    image = torch.randint(0, 256, (count, channels, 33, 41), dtype=torch.uint8, generator=seeded(1)) // 2 + 30
    return image, torch.randint(0, 5, (count, 33, 41), dtype=torch.uint8, generator=seeded(2))


def applied(policy: Policy, name: str, image: Tensor, mask: Tensor, level: float, sign: float) -> tuple[Tensor, Tensor]:
    """One operation done to one image ``(C, H, W)`` and its mask ``(H, W)``."""
    number = torch.tensor([list(policy.space).index(name)])
    level_, sign_ = torch.tensor([level]).double(), torch.tensor([sign])
    changed, moved = policy.apply_operations(image[None].clone(), mask[None], number, level_, sign_)
    assert moved is not None
    return changed[0], moved[0]


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower().replace("auto_contrast", "autocontrast")


TORCHVISION = [
    pytest.param(policy, reference, name, id=f"{reference.__name__}-{name}")
    for policy, reference in ((TrivialAugment, theirs.TrivialAugmentWide), (AutoAugment, theirs.AutoAugment))
    for name in reference._AUGMENTATION_SPACE
]


@pytest.mark.parametrize(("kind", "reference", "name"), TORCHVISION)
@pytest.mark.parametrize("step", [0, 4, 9])
def test_each_operation_is_torchvisions(kind: type[Policy], reference: type, name: str, step: int) -> None:
    policy, other = kind(ignored=IGNORED), reference()
    assert set(policy.space) == {snake(n) for n in reference._AUGMENTATION_SPACE}
    (image, *_), (mask, *_) = batch()
    magnitudes, signed = reference._AUGMENTATION_SPACE[name]
    bins = magnitudes(10, *image.shape[1:])
    for sign in (1.0, -1.0):
        amount = 0.0 if bins is None else float(bins[step]) * (sign if signed else 1.0)
        changed, moved = applied(policy, snake(name), image, mask, step / 9, sign)
        bilinear = other._apply_image_or_video_transform(image, name, amount, InterpolationMode.BILINEAR, {})
        # Ours is rounded once, theirs cuts decimals off, and those of its luma too.
        assert (changed.int() - bilinear.int()).abs().max() <= (2 if name == "Color" else 1)
        if snake(name) in MOVES:
            # What lies between two pixels may go to either.
            expected = other._apply_image_or_video_transform(
                mask[None], name, amount, InterpolationMode.NEAREST, {type(mask): IGNORED}
            )
            assert (moved != expected[0]).double().mean() < 0.02
            assert step == 0 or (moved == IGNORED).any()
        else:
            assert torch.equal(moved, mask)


NAMES = {
    "color": "Color",
    "translate_x": "TranslateXRel",
    "translate_y": "TranslateYRel",
    "autocontrast": "AutoContrast",
}
INCREASING = {"posterize", "solarize", "color", "contrast", "brightness", "sharpness"}


@pytest.mark.parametrize("name", operations(True))
@pytest.mark.parametrize("increasing", [True, False])
@pytest.mark.parametrize("magnitude", [0.0, 3.3, 7.0, 9.0, 10.0])
def test_each_operation_of_rand_augment_is_timms(
    name: str, increasing: bool, magnitude: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = RandAugment(increasing=increasing, ignored=IGNORED)
    (image, *_), (mask, *_) = batch()
    if name == "posterize" and magnitude == (10 if increasing else 0):
        assert (applied(policy, name, image, mask, magnitude / 10, 1.0)[0] == 0).all(), "no bits, which Pillow refuses"
        return
    timms = NAMES.get(name, "".join(word.capitalize() for word in name.split("_")))
    timms += "Increasing" if increasing and name in INCREASING else ""
    assert timms in timm_policies.rand_augment_choices("", increasing)
    settings = {"interpolation": Image.Resampling.BILINEAR, "img_mean": (0, 0, 0)}
    operation = timm_policies.AugmentOp(timms, 1.0, magnitude, settings)
    for sign in (1.0, -1.0):
        # Theirs moves the other way, to the left and up.
        negative = (sign < 0) != name.startswith("translate")
        monkeypatch.setattr(timm_policies.random, "random", lambda negative=negative: 0.9 if negative else 0.1)
        expected = pil_to_tensor(operation(to_pil_image(image)))
        changed, _ = applied(policy, name, image, mask, magnitude / 10, sign)
        # At the edge of what was moved, theirs does not blend with what lies outside.
        white = torch.full_like(image, 255)
        inside = applied(policy, name, white, mask, magnitude / 10, sign)[0] == 255 if name in MOVES else white > 0
        assert inside.double().mean() > 0.3
        assert (changed.int() - expected.int())[inside].abs().max() <= (2 if name in MOVES else 1)


def test_there_are_as_many_operations_as_timm_has() -> None:
    assert len(operations(True)) == len(timm_policies._RAND_INCREASING_TRANSFORMS) == 15
    assert all(name in COLORS or name in MOVES for name in operations(False))


def test_the_pairs_are_torchvisions() -> None:
    assert list(POLICIES) == [policy.value for policy in AutoAugmentPolicy]
    for policy in AutoAugmentPolicy:
        pairs = theirs.AutoAugment(policy)._policies
        assert POLICIES[policy.value] == tuple(tuple((snake(n), p, level) for n, p, level in pair) for pair in pairs)


def test_what_rand_augment_draws() -> None:
    drawn = RandAugment(3, 7.0, 0.5, p=0.6).draw(20_000, seeded())
    assert len(drawn) == 3
    for operation, level in drawn:
        counts = torch.bincount(operation + 1, minlength=16) / 20_000
        assert counts[0].item() == pytest.approx(0.4, abs=0.02)
        assert (counts[1:] - 0.04).abs().max() < 0.008
        assert level.mean().item() == pytest.approx(0.7, abs=0.002)
        assert level.std().item() == pytest.approx(0.05, abs=0.002)
    (first, _), (second, _), _ = drawn
    assert (first == second).double().mean().item() == pytest.approx(0.4**2 + 15 * 0.04**2, abs=0.02)
    (_, level), *_ = RandAugment(magnitude_std=9.0).draw(1000, seeded())
    assert level.min() == 0
    assert level.max() == 1


def test_what_trivial_augment_draws() -> None:
    ((operation, level),) = TrivialAugment(5, p=0.7).draw(20_000, seeded())
    counts = torch.bincount(operation + 1, minlength=15) / 20_000
    assert counts[0].item() == pytest.approx(0.3, abs=0.02)
    assert (counts[1:] - 0.05).abs().max() < 0.009
    assert level.unique().tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert (torch.bincount((4 * level).int()) / 20_000 - 0.2).abs().max() < 0.02


@pytest.mark.parametrize("name", POLICIES)
def test_what_auto_augment_draws(name: str) -> None:
    policy = AutoAugment(name, p=0.8)
    for place, (operation, _) in enumerate(policy.draw(20_000, seeded())):
        for number, known in enumerate(policy.space):
            expected = sum(0.8 * pair[place][1] / 25 for pair in POLICIES[name] if pair[place][0] == known)
            assert (operation == number).double().mean().item() == pytest.approx(expected, abs=0.012)
    together = {(a, b) for a, b in zip(*(o.tolist() for o, _ in policy.draw(5000, seeded())), strict=True)}
    names = list(policy.space)
    pairs = {(names.index(pair[0][0]), names.index(pair[1][0])) for pair in POLICIES[name]}
    assert {pair for pair in together if -1 not in pair} <= pairs


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_each_image_gets_what_it_drew(name: str, channels: int) -> None:
    policy, (image, mask) = KINDS[name](ignored=IGNORED, fill=9), batch(channels)
    before = image.clone(), mask.clone()
    changed, moved = policy(image, mask, seeded())
    assert moved is not None
    assert changed.dtype == torch.uint8
    assert torch.equal(image, before[0])
    assert torch.equal(mask, before[1])
    steps, generator = len(policy.draw(24, seeded())), seeded()
    drawn = policy.draw(24, generator)
    signs = [1.0 - 2.0 * torch.randint(2, (24,), generator=generator) for _ in range(steps)]
    names = list(policy.space)
    for i in range(24):
        one, target = image[i], mask[i]
        for (operation, level), sign in zip(drawn, signs, strict=True):
            if operation[i] >= 0:
                what = names[int(operation[i])]
                one, target = applied(policy, what, one, target, level[i].item(), sign[i].item())
        # Angles of a whole batch have sines that differ in the last bit.
        assert (changed[i].int() - one.int()).abs().max() <= 1
        assert (changed[i] != one).double().mean() < 0.01
        assert (moved[i] != target).double().mean() < 0.01
    if channels in (2, 4):
        still = torch.stack([torch.isin(o, torch.tensor([names.index(n) for n in MOVES])) for o, _ in drawn]).any(0)
        assert torch.equal(changed[~still, -1], image[~still, -1]), "alpha stays"


@pytest.mark.parametrize("name", KINDS)
def test_the_generator_decides(name: str) -> None:
    policy, (image, _) = KINDS[name](), batch()
    labels = torch.arange(24)
    first, target = policy(image, labels, seeded(3))
    assert target is labels
    torch.rand(9)
    assert torch.equal(first, policy(image, None, seeded(3))[0])
    assert not torch.equal(first, policy(image, None, seeded(4))[0])
    assert torch.equal(policy(image.contiguous(memory_format=torch.channels_last), None, seeded(3))[0], first)
    assert policy(image[:0], None, seeded())[0].shape == (0, 3, 33, 41)
    assert torch.equal(KINDS[name](p=0.0)(image, None, seeded())[0], image)
    with pytest.raises(ValueError, match="6 channels"):
        policy(torch.cat((image, image), 1), None, seeded())
    # The images of a sample change alike, so that a class map fits all of them.
    both = KINDS[name](num_inputs=2)(torch.cat((image, image), 1), None, seeded(3))[0]
    assert torch.equal(both, torch.cat((first, first), 1))


def test_color_leaves_grey_images() -> None:
    (image, *_), (mask, *_) = batch(1)
    assert torch.equal(applied(TrivialAugment(ignored=IGNORED), "color", image, mask, 1.0, -1.0)[0], image)
