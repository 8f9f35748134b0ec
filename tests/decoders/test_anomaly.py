from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed

from lightning_vision.decoders.anomaly import AnomalyDecoder
from lightning_vision.errors import ConfigError
from lightning_vision.testing.conformance import check_decoder
from lightning_vision.testing.processes import Child
from lightning_vision.types import FeatureInfo

INFO = FeatureInfo((6,), (4,), 6)
SIZE = (8, 8)


def decoder(**settings: object) -> AnomalyDecoder:
    torch.manual_seed(0)
    return AnomalyDecoder(INFO, 2, **settings)  # type: ignore[arg-type]


def embeddings(count: int = 50, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed)) + torch.arange(1.0, 7.0)


def test_the_score_is_the_squared_distance_from_the_centre() -> None:
    made = decoder(output_size=5, num_fc_layers=1, fc_output_size=7)
    made.start_from([embeddings()], SIZE)
    x = embeddings(4, seed=1)
    weights = [p.detach().double().numpy() for p in made.parameters()]
    assert [w.shape for w in weights] == [(7, 6), (5, 7)], "no layer has a bias"
    center = made.center.double().numpy()
    for row, score in zip(x.double().numpy(), made(x, SIZE).tolist(), strict=True):
        hidden = [max(0.0, sum(w * v for w, v in zip(line, row, strict=True))) for line in weights[0]]
        z = [sum(w * v for w, v in zip(line, hidden, strict=True)) for line in weights[1]]
        assert score == pytest.approx(sum((a - b) ** 2 for a, b in zip(z, center, strict=True)), rel=1e-5)


def test_null_leaves_the_last_layer_out() -> None:
    made = decoder(output_size=None)
    assert not list(made.parameters())
    assert torch.equal(made(embeddings(3), SIZE), embeddings(3).square().sum(1))


def test_the_centre_is_the_mean_of_all_batches_away_from_zero() -> None:
    made = decoder(output_size=None)
    x = embeddings(50)
    x[:, 1] = x[:, 1] - x[:, 1].mean() + 0.04  # near zero on one side
    x[:, 2] = x[:, 2] - x[:, 2].mean() - 0.04  # and on the other
    x[:, 3] = 0
    made.start_from([x[:20], x[20:20], x[20:]], SIZE)
    expected = x.double().mean(0)
    expected[1], expected[2], expected[3] = 0.1, -0.1, 0.1
    assert torch.allclose(made.center.double(), expected, atol=1e-6)


def test_the_centre_is_no_part_of_what_is_trained_but_of_what_is_saved() -> None:
    made, other = decoder(), decoder()
    made.start_from([embeddings()], SIZE)
    made.threshold.fill_(1.5)
    other.load_state_dict(made.state_dict())
    assert torch.equal(other(embeddings(3), SIZE), made(embeddings(3), SIZE))
    assert other.threshold == 1.5
    assert {name for name, _ in made.named_parameters()} == {"last_layer.weight"}
    assert decoder().threshold.isnan(), "unknown until it is learned"


def test_half_precision_is_widened_before_distances_are_taken() -> None:
    made = decoder()
    made.start_from([embeddings()], SIZE)
    with torch.autocast("cpu", torch.bfloat16):
        score = made(embeddings(8), SIZE)
    assert score.dtype == torch.float32
    assert torch.allclose(score, made(embeddings(8), SIZE), rtol=0.1)


def test_maps_are_refused() -> None:
    with pytest.raises(ConfigError, match="embedding"):
        decoder()([torch.zeros(1, 6, 2, 2)], SIZE)


def _start(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    made = decoder()
    x = embeddings(9)
    # The ranks have different numbers of rows, and one of them an empty batch.
    made.start_from([x[:7]] if rank == 0 else [x[7:], x[:0]], SIZE)
    np.save(f"{folder}/{rank}.npy", made.center.numpy())
    distributed.destroy_process_group()


def test_two_processes_find_the_centre_of_one(tmp_path: Path) -> None:
    for child in [Child(_start, rank, str(tmp_path)) for rank in range(2)]:
        child.succeed()
    made = decoder()
    made.start_from([embeddings(9)], SIZE)
    for rank in range(2):
        assert np.allclose(np.load(tmp_path / f"{rank}.npy"), made.center.numpy(), atol=1e-6)


def test_keeps_the_contract() -> None:
    check_decoder(decoder(num_fc_layers=1, fc_output_size=5))
