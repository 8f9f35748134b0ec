"""What a head sees of other outputs, and how maps become vectors."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from lightning_vision.inlet import Inlet, reduce_cells
from lightning_vision.outputs import Reduce
from lightning_vision.types import FeatureInfo

INFO = FeatureInfo((3, 5), (4, 8), 7)
MAPS = [torch.randn(2, 3, 4, 6), torch.randn(2, 5, 2, 3)]


@pytest.mark.parametrize("how", get_args(Reduce))
def test_cells_are_reduced_as_documented(how: Reduce) -> None:
    found = reduce_cells(MAPS[1], how)
    for b in range(2):
        rows = [MAPS[1][b, :, y, x] for y in range(2) for x in range(3)]
        stack = torch.stack(rows)
        expected = {
            "sum": stack.sum(0),
            "mean": stack.mean(0),
            "avg": stack.mean(0),
            "max": stack.max(0).values,
            "last": rows[-1],
            "concat": torch.cat(rows),
        }[how]
        torch.testing.assert_close(found[b], expected)
    vector = torch.randn(2, 5)
    assert reduce_cells(vector, how) is vector


def test_an_embedding_is_joined_with_what_it_depends_on() -> None:
    inlet = Inlet(INFO, "embedding", None, {"mask": 5, "scene": 2}, "mean", (2, 3))
    embedding, scene = torch.randn(2, 7), torch.randn(2, 2)
    found = inlet(embedding, {"scene": scene, "mask": MAPS[1], "another": torch.randn(2, 9)})
    assert inlet.info.embed_dim == found.shape[1] == 14
    torch.testing.assert_close(found, torch.cat([embedding, MAPS[1].mean((2, 3)), scene], 1))


def test_a_pyramid_gets_it_in_every_cell() -> None:
    inlet = Inlet(INFO, "pyramid", "sum", {"scene": 2}, "sum", (2, 3))
    scene = torch.randn(2, 2)
    found = inlet(MAPS, {"scene": scene})
    assert inlet.info.channels == (5, 7)
    for new, old in zip(found, MAPS, strict=True):
        assert torch.equal(new[:, : old.shape[1]], old)
        assert torch.equal(new[:, old.shape[1] :, 1, 2], scene)


@pytest.mark.parametrize(("how", "width"), [("sum", 5), ("concat", 30)])
def test_the_deepest_map_can_stand_for_the_embedding(how: Reduce, width: int) -> None:
    inlet = Inlet(INFO, "embedding", how, {}, "sum", (2, 3))
    assert inlet.info.embed_dim == width
    assert torch.equal(inlet(MAPS, {}), reduce_cells(MAPS[1], how))


def test_concat_needs_images_of_one_size() -> None:
    inlet = Inlet(INFO, "embedding", "concat", {}, "sum", (2, 3))
    with pytest.raises(ValueError, match="size that the model was trained with"):
        inlet([MAPS[0], torch.randn(2, 5, 3, 3)], {})


def test_gradients_reach_the_output_that_is_depended_on() -> None:
    inlet = Inlet(INFO, "embedding", None, {"scene": 2}, "sum", (2, 3))
    scene = torch.randn(2, 2, requires_grad=True)
    inlet(torch.randn(2, 7), {"scene": scene}).sum().backward()
    assert scene.grad is not None
    assert (scene.grad == 1).all()
