"""Several processes against one: the same loss, and the same gradient of a shared layer once it is averaged."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn

from lightning_vision.losses.base import Loss
from lightning_vision.losses.nt_xent import NTXentLoss
from lightning_vision.losses.supervised_contrastive import SupervisedContrastiveLoss
from lightning_vision.testing.processes import Child

# Rows of each rank: equal, unequal, and one without any.
SHARES = ((4, 4), (6, 2), (0, 8))


def example() -> tuple[Tensor, Tensor, nn.Linear]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 3, dtype=torch.float64, generator=generator)
    layer = nn.Linear(3, 4, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(4, 3, generator=generator))
        layer.bias.zero_()
    return x, torch.tensor([0, 0, 1, 1, 255, 255, 0, 0]), layer


def losses(gather: bool = True) -> list[Loss]:
    return [
        NTXentLoss(2, temperature=0.5, gather=gather),
        SupervisedContrastiveLoss(2, ignore_index=255, temperature=0.5, gather=gather),
    ]


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    found = []
    for counts in SHARES:
        for loss in losses():
            x, target, layer = example()
            mine = slice(0, counts[0]) if rank == 0 else slice(counts[0], None)
            value = loss(layer(x[mine]), target[mine])
            value.backward()
            assert layer.weight.grad is not None
            averaged = torch.cat([value.detach().reshape(1), layer.weight.grad.flatten()])
            distributed.all_reduce(averaged)
            found.append(averaged / 2)
    # Each rank by itself: in evaluation, where a rank may have no batch and would be waited for, or if it is so set.
    x, target, layer = example()
    if rank == 0:
        alone = (*(loss.eval() for loss in losses()), *losses(gather=False))
        found += [loss(layer(x[:4]), target[:4]).detach().reshape(1) for loss in alone]
        torch.save(found, f"{folder}/found.pt")
    distributed.destroy_process_group()


@pytest.mark.skipif(sys.platform == "win32", reason="gloo over a file")
def test_two_processes_have_the_loss_and_the_gradient_of_one(tmp_path: Path) -> None:
    for child in [Child(process, rank, str(tmp_path)) for rank in range(2)]:
        child.succeed()
    found = iter(torch.load(tmp_path / "found.pt", weights_only=True))
    for counts in SHARES:
        for loss in losses():
            x, target, layer = example()
            value = loss(layer(x), target)
            value.backward()
            assert layer.weight.grad is not None
            expected = torch.cat([value.detach().reshape(1), layer.weight.grad.flatten()])
            torch.testing.assert_close(next(found), expected, msg=f"{type(loss).__name__} {counts}")
    x, target, layer = example()
    for loss in (*losses(), *losses()):
        torch.testing.assert_close(next(found), loss(layer(x[:4]), target[:4]).detach().reshape(1))
