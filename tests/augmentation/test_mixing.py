"""Mixup, CutMix and the choice of both: images, and the targets of every kind with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.data.mixup import rand_bbox
from torch import Tensor

from lightning_vision.augmentation.batches import augmented
from lightning_vision.augmentation.cutmix import CutMix, boxes
from lightning_vision.augmentation.flip import RandomHorizontalFlip
from lightning_vision.augmentation.mixing import Mix, draw_partners, draw_shares, largest_share, mix_target
from lightning_vision.augmentation.mixup import Mixup
from lightning_vision.augmentation.mixup_cutmix import MixupCutMix
from lightning_vision.types import TargetSpec

NAMES = ("a", "b", "c")
LABEL, LABELS, MASK = (TargetSpec(kind, NAMES, 9) for kind in ("label", "labels", "mask"))
KINDS = [Mixup(2.0), CutMix(), MixupCutMix(2.0)]


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 9, channels: int = 3, height: int = 6, width: int = 10) -> Tensor:
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=drawn(5))


def pixels_own(mix: Mix, i: int, y: int, x: int) -> float:
    """The share of the sample itself in a pixel."""
    if mix.pasted is not None and mix.pasted[i, y, x]:
        return 0.0
    return 1.0 if mix.blended is None else float(mix.blended[i])


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: type(k).__name__)
@pytest.mark.parametrize("channels", [1, 4])
def test_pixels_are_the_documented_ones(kind: Any, channels: int) -> None:
    image = images(channels=channels)
    before = image.clone()
    mixed, mix = kind.mix(image, drawn(0))
    assert mixed.dtype == torch.uint8
    assert torch.equal(image, before)
    shares = []
    for i in range(len(image)):
        own = np.array([[pixels_own(mix, i, y, x) for x in range(10)] for y in range(6)])
        expected = own * image[i].double().numpy() + (1 - own) * image[int(mix.partner[i])].double().numpy()
        assert np.abs(mixed[i].double().numpy() - expected).max() <= 0.5 + 1e-4
        shares.append(own.mean())
    assert np.allclose(mix.share, shares, atol=1e-6)
    assert len({round(s, 3) for s in shares}) > 3, "every image has a share of its own"


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: type(k).__name__)
def test_the_generator_alone_decides(kind: Any) -> None:
    first = kind.mix(images(), drawn(3))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        np.random.seed(1)
        assert torch.equal(first[0], kind.mix(images(), drawn(3))[0])
    assert not torch.equal(first[0], kind.mix(images(), drawn(4))[0])


@pytest.mark.parametrize("kind", [Mixup(2.0, p=0.5), CutMix(p=0.5), MixupCutMix(2.0, p=0.5)])
def test_p_is_the_share_of_images_that_are_mixed(kind: Any) -> None:
    image = images(600, 1, 16, 16)
    mixed, mix = kind.mix(image, drawn(0))
    same = (mixed == image).flatten(1).all(1)
    assert torch.equal(mix.share[same], torch.ones(int(same.sum())))
    assert 0.4 < same.float().mean() < 0.62
    kind.p = 0.0
    mixed, mix = kind.mix(image, drawn(0))
    assert torch.equal(mixed, image)
    assert torch.equal(mix_target(torch.arange(600) % 3, mix, LABEL).argmax(1), torch.arange(600) % 3)


def test_a_choice_of_both() -> None:
    _, mix = MixupCutMix(0.7, 1.0, switch_p=0.25).mix(images(800, 1, 16, 16), drawn(0))
    assert mix.pasted is not None
    assert mix.blended is not None
    pasted, blended = mix.pasted.flatten(1).any(1), mix.blended < 1
    assert not (pasted & blended).any()
    assert 0.18 < pasted.float().mean() < 0.3
    assert 0.68 < blended.float().mean() < 0.8


@given(st.integers(2, 40), st.integers(0, 999))
def test_everyone_is_another_ones_partner(count: int, seed: int) -> None:
    partner = draw_partners(count, drawn(seed))
    assert sorted(partner.tolist()) == list(range(count))
    assert (partner != torch.arange(count)).all()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    share = draw_shares(alpha, 40_000, drawn(0)).double()
    assert ((share >= 0) & (share <= 1)).all()
    assert share.mean() == pytest.approx(0.5, abs=0.01)
    assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)


def test_boxes_are_those_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    share = draw_shares(1.0, 50, drawn(1))
    inside = boxes(share, 13, 20, drawn(2))
    again = drawn(2)
    centres = [torch.randint(length, (50,), generator=again).tolist() for length in (13, 20)]
    for i in range(50):
        at = iter((centres[0][i], centres[1][i]))
        monkeypatch.setattr(np.random, "randint", lambda *_, at=at, **__: next(at))
        top, bottom, left, right = rand_bbox((1, 13, 20), float(share[i]))
        expected = torch.zeros(13, 20, dtype=torch.bool)
        expected[top:bottom, left:right] = True
        assert torch.equal(inside[i], expected)


def naive(own: float, other: float, share: float, unknown: tuple[float, ...]) -> float | None:
    if (share > 0 and own in unknown) or (share < 1 and other in unknown):
        return None
    return (share and share * own) + ((1 - share) and (1 - share) * other)


@given(st.integers(0, 999), st.booleans(), st.booleans())
def test_targets_against_a_loop(seed: int, pastes: bool, blends: bool) -> None:
    count, height, width = 5, 3, 4
    g = drawn(seed)
    partner = draw_partners(count, g)
    blended = draw_shares(0.3, count, g).where(torch.rand(count, generator=g) < 0.7, torch.ones(count))
    blended[0] = 0.0
    pasted = torch.rand(count, height, width, generator=g) < 0.4
    own = (blended[:, None, None] if blends else torch.ones(count, 1, 1)) * (~pasted if pastes else 1.0)
    share = own.expand(count, height, width).mean((1, 2))
    mix = Mix(partner, share, pasted if pastes else None, blended if blends else None)

    label = torch.randint(0, 3, (count,), generator=g).where(torch.rand(count, generator=g) < 0.8, 9)
    found = mix_target(label, mix, LABEL)
    sets = torch.randint(0, 2, (count, 3), generator=g, dtype=torch.uint8)
    sets[torch.rand(count, 3, generator=g) < 0.2] = 255
    found_sets = mix_target(sets, mix, LABELS)
    ids = torch.tensor([0, 1, 2, 9], dtype=torch.uint8)
    mask = ids[torch.randint(0, 4, (count, height, width), generator=g)]
    found_mask = mix_target(mask, mix, MASK)
    assert found_mask.dtype == (torch.float32 if blends else torch.uint8)

    for i in range(count):
        j, s = int(partner[i]), float(share[i])
        ignored = (s > 0 and label[i] == 9) or (s < 1 and label[j] == 9)
        for c in range(3):
            expected = 0.0 if ignored else s * (label[i] == c) + (1 - s) * (label[j] == c)
            assert float(found[i, c]) == pytest.approx(float(expected), abs=1e-6)
            value = naive(float(sets[i, c]), float(sets[j, c]), s, (255.0,))
            assert float(found_sets[i, c]) == pytest.approx(255 if value is None else value, abs=1e-6)
        for y in range(height):
            for x in range(width):
                p = pixels_own(mix, i, y, x)
                mine, theirs = int(mask[i, y, x]), int(mask[j, y, x])
                if not blends:
                    assert int(found_mask[i, y, x]) == (mine if p else theirs)
                    continue
                void = (p > 0 and mine == 9) or (p < 1 and theirs == 9)
                row = [0.0 if void else p * (mine == c) + (1 - p) * (theirs == c) for c in range(3)]
                assert found_mask[i, :, y, x].tolist() == pytest.approx(row, abs=1e-6)


def test_an_id_that_is_no_class_is_not_taken_for_an_ignored_one() -> None:
    mix = Mixup().mix(images(2), drawn(0))[1]
    with pytest.raises((RuntimeError, IndexError)):
        mix_target(torch.tensor([0, 7]), mix, LABEL)


def test_the_largest_share_of_each_kind() -> None:
    assert largest_share(torch.tensor([[0.3, 0.7, 0.0], [0.0, 0.0, 0.0]]), LABEL).tolist() == [1, 9]
    assert largest_share(torch.tensor([[0.3, 0.7, 255.0]]), LABELS).tolist() == [[0, 1, 255]]
    maps = torch.tensor([[0.3, 0.7, 0.0], [0.0, 0.0, 0.0]]).T[None, :, None]
    assert largest_share(maps, MASK).tolist() == [[[1, 9]]]
    assert largest_share(torch.tensor([2, 9]), LABEL).tolist() == [2, 9]


def test_all_targets_of_a_batch_are_mixed_alike() -> None:
    """Also twice in a row, and behind what moves masks."""
    image, mask = images(4, 3, 6, 10), torch.randint(0, 3, (4, 6, 10), dtype=torch.uint8, generator=drawn(1))
    targets = {"kind": torch.tensor([0, 1, 2, 0]), "seen": torch.eye(4, 3, dtype=torch.uint8)}
    batch: Any = {"image": image, "target": mask, "targets": targets, "index": torch.arange(4)}
    specs = {None: MASK, "kind": LABEL, "seen": LABELS}
    transforms = [RandomHorizontalFlip(1.0), CutMix(), Mixup(1.0)]
    found = augmented(batch, transforms, drawn(0), specs=specs)

    again = drawn(0)
    flipped, moved = transforms[0](image, mask, again)
    pasted, first = CutMix().mix(flipped, again)
    blended, second = Mixup(1.0).mix(pasted, again)
    assert torch.equal(found["image"], blended)
    once = torch.where(first.pasted, moved[first.partner], moved)  # type: ignore[arg-type]
    hot = torch.nn.functional.one_hot(once.long(), 3).movedim(-1, 1).float()
    share = second.share.view(-1, 1, 1, 1)
    torch.testing.assert_close(found["target"], share * hot + (1 - share) * hot[second.partner])
    kind = mix_target(mix_target(targets["kind"], first, LABEL), second, LABEL)
    torch.testing.assert_close(found["targets"]["kind"], kind)
    torch.testing.assert_close(kind.sum(1), torch.ones(4))
    assert found["targets"]["seen"].dtype == torch.float32
    assert torch.equal(batch["targets"]["kind"], torch.tensor([0, 1, 2, 0])), "the batch itself stays"
    with pytest.raises(ValueError, match="seen"):
        augmented(batch, [CutMix()], drawn(0), specs={None: MASK, "kind": LABEL})
