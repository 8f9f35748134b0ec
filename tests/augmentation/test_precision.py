"""Random changes while the model computes in another precision, and on a device that is not waited for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightning_vision.augmentation import batches
from lightning_vision.augmentation.affine import RandomAffine
from lightning_vision.augmentation.batches import augmented
from lightning_vision.augmentation.blur import RandomBlur
from lightning_vision.augmentation.color_jitter import ColorJitter
from lightning_vision.augmentation.crop import RandomCrop
from lightning_vision.augmentation.cutmix import CutMix
from lightning_vision.augmentation.erasing import RandomErasing
from lightning_vision.augmentation.flip import RandomHorizontalFlip
from lightning_vision.augmentation.hue import RandomHue
from lightning_vision.augmentation.mixup import Mixup
from lightning_vision.augmentation.mixup_cutmix import MixupCutMix
from lightning_vision.augmentation.rand_augment import RandAugment
from lightning_vision.augmentation.resized_crop import RandomResizedCrop
from lightning_vision.augmentation.rotate import RandomRotate
from lightning_vision.augmentation.scale_jitter import ScaleJitter
from lightning_vision.types import Batch, TargetSpec

SPECS: dict[str | None, TargetSpec] = {
    None: TargetSpec("mask", ("a", "b"), 255),
    "kind": TargetSpec("label", ("a", "b")),
}
ALL: list[nn.Module] = [
    RandomHorizontalFlip(0.5),
    RandomRotate(p=1, ignored=255),
    RandomAffine(p=1, ignored=255),
    ScaleJitter(p=1, ignored=255),
    RandomCrop((16, 20), ignored=255),
    RandomResizedCrop(),
    RandomErasing(1.0),
    RandomHue(p=1),
    RandomBlur(sigma=(0.1, 2.0), p=1),
    ColorJitter(p=1),
    RandAugment(ignored=255),
    Mixup(1.0),
    CutMix(),
    MixupCutMix(),
]


def changed(transform: nn.Module, device: str = "cpu") -> Batch:
    drawn = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (6, 3, 16, 20), dtype=torch.uint8, generator=drawn)
    mask = torch.randint(0, 2, (6, 16, 20), dtype=torch.uint8, generator=drawn)
    kinds = {"kind": torch.arange(6).to(device) % 2}
    batch: Batch = {"image": image.to(device), "target": mask.to(device), "targets": kinds, "index": torch.arange(6)}
    return augmented(batch, [transform], torch.Generator().manual_seed(0), specs=SPECS)


@pytest.fixture
def default_dtype() -> Iterator[None]:
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("default_dtype")
@pytest.mark.parametrize("transform", ALL, ids=lambda t: type(t).__name__)
def test_the_precision_of_the_model_changes_nothing(transform: nn.Module) -> None:
    expected = changed(transform)
    found = {}
    for dtype in (torch.float64, torch.bfloat16):
        torch.set_default_dtype(dtype)
        found[dtype] = changed(transform)
        assert torch.get_default_dtype() == dtype
    torch.set_default_dtype(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found["mixed"] = changed(transform)
        assert torch.is_autocast_enabled("cpu")
    for precision, batch in found.items():
        torch.testing.assert_close(batch, expected, rtol=0, atol=0, msg=str(precision))


class Moves(TorchFunctionMode):
    """Notes what is sent to a device, and whether it was waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, bool]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is Tensor.to and result.device != args[0].device:
            self.seen.append((args[0], bool((kwargs or {}).get("non_blocking"))))
        return result


# The two others have a generator there, and autocast, which that device has not.
@pytest.mark.parametrize(
    "transform",
    [t for t in ALL if not isinstance(t, RandomErasing | RandomResizedCrop)],
    ids=lambda t: type(t).__name__,
)
def test_a_device_is_not_waited_for_and_gets_nothing_large_twice(
    transform: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On torch's device without memory, where reading a number back is an error; autocast does not know it."""
    monkeypatch.setattr(batches, "_float32", nullcontext)
    with Moves() as moves:
        batch = changed(transform, "meta")
    assert batch["image"].device.type == "meta"
    sent = moves.seen[3:]  # behind those of the batch itself
    assert sent
    assert [tensor.shape for tensor, without_waiting in sent if not without_waiting] == []
    large = [id(tensor) for tensor, _ in sent if tensor.ndim >= 3]
    assert len(large) == len(set(large))
