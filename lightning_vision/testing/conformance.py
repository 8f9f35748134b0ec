"""The checks that every encoder, decoder and loss must pass, those of plugins too.

Each function raises ``AssertionError`` with what is wrong.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from lightning_vision.decoders.base import Decoder
from lightning_vision.decoders.kinds import KINDS, check_kinds
from lightning_vision.encoders.base import Encoder
from lightning_vision.errors import ConfigError
from lightning_vision.losses.base import Loss
from lightning_vision.tasks import TASKS
from lightning_vision.types import FeatureInfo

# A round one, one that no stride divides and one with a short side.
SIZES = ((64, 64), (95, 127), (97, 33))


def check_encoder(
    encoder: Encoder,
    rebuild: Callable[..., Encoder] | None = None,
    sizes: Sequence[tuple[int, int]] = SIZES,
    unused: Sequence[str] = (),
) -> None:
    """Check shapes, truthfulness of ``info``, gradients, half precision, freezing and, with ``rebuild``, reloading.

    Embedding and pyramid together must be those of each alone. The encoder is left frozen.

    Args:
        encoder: A trainable encoder.
        rebuild: The class with its original arguments bound, taking ``rebuild_kwargs`` over them.
        sizes: Heights and widths to try.
        unused: Parts of names of parameters that neither output reaches, such as a mask token.
    """
    info, channels = encoder.info, encoder.num_channels
    assert len(encoder.pixel_stats.mean) == len(encoder.pixel_stats.std) == channels, "one statistic a channel"
    assert min(encoder.pixel_stats.std) > 0, "a standard deviation is above 0"
    for size in sizes:
        x = torch.randn(2, channels, *size)
        _check_features(encoder.pyramid(x), encoder.embed(x), info, size, 2)
    x = torch.randn(2, channels, *sizes[0])

    encoder.train()
    assert encoder.trainable, "give a trainable encoder"
    _backward([encoder.embed(x), *encoder.pyramid(x)])
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad and not any(part in name for part in unused):
            assert parameter.grad is not None, f"no gradient reaches {name}"
            assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
    encoder.zero_grad(set_to_none=True)

    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            outputs = [encoder.embed(x), *encoder.pyramid(x)]
        assert all(o.isfinite().all() for o in outputs), f"not finite under autocast to {dtype}"
        assert all(o.is_floating_point() for o in outputs), "features are floating point"

    _check_one_pass(encoder, x)
    encoder.eval()
    _check_strides(encoder)
    expected = encoder.embed(x)
    assert torch.equal(expected, encoder.embed(x)), "eval mode is deterministic"
    clone = copy.deepcopy(encoder)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(1.0)
    assert torch.equal(clone.embed(x), expected), "a deep copy uses its own weights"
    encoder.load_state_dict(clone.state_dict())
    if rebuild is not None:
        again = rebuild(**encoder.rebuild_kwargs())
        again.load_state_dict(encoder.state_dict())
        assert again.info == info, "the rebuilt encoder tells the same"
        assert again.weights_digest() == encoder.weights_digest(), "the rebuilt encoder has the same weights"
        assert torch.equal(again.eval().embed(x), expected), "the rebuilt encoder computes the same"

    check_frozen(encoder, x)


@torch.no_grad()
def _check_strides(encoder: Encoder) -> None:
    """Check that maps have their strides before they are cut, which would hide one that is named too large."""
    if encoder.skip:
        return
    info = encoder.info
    step = math.lcm(*info.strides, encoder.multiple)
    side = step * -(-max(2 * max(info.strides), *encoder.min_size) // step)
    maps = encoder.pyramid_features(
        encoder.shared_features(torch.randn(2, encoder.num_channels, side, side), ("pyramid",))
    )
    for found, stride in zip(maps, info.strides, strict=True):
        # Some cells more come of an encoder's own padding, as to Swin's windows; half the stride makes twice as many.
        size = tuple(found.shape[-2:])
        assert max(size) < 2 * (side // stride), f"a map of {size} for {side} pixels a side has not the stride {stride}"


def _check_one_pass(encoder: Encoder, x: Tensor) -> None:
    """Check that ``features`` gives what ``embed`` and ``pyramid`` do, and runs shared layers once if it says so."""
    both = ("embedding", "pyramid")
    encoder.eval()
    found = encoder.features(x, both)
    assert tuple(found) == both, f"features returns {list(found)} instead of {list(both)}"
    assert torch.equal(cast(Tensor, found["embedding"]), encoder.embed(x)), "features gives the embedding of embed"
    for level, expected in zip(found["pyramid"], encoder.pyramid(x), strict=True):
        assert torch.equal(level, expected), "features gives the maps of pyramid"
    if type(encoder).shared_features is Encoder.shared_features:
        return
    encoder.train()
    alone = [_count_calls(encoder, x, (kind,)) for kind in both]
    for name, calls in _count_calls(encoder, x, both).items():
        once = max(counts[name] for counts in alone)
        assert calls == once, f"{name} runs {calls} times for embedding and pyramid together instead of {once}"


def _count_calls(encoder: Encoder, x: Tensor, wanted: Sequence[str]) -> Counter[str]:
    """Count the calls of convolutions and linear layers, and the batches that norms with statistics have seen."""
    counts: Counter[str] = Counter()
    layers = [(name, m) for name, m in encoder.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [m.register_forward_hook(lambda *_, name=name: counts.update([name])) for name, m in layers]
    seen = {name: int(b) for name, b in encoder.named_buffers() if name.endswith("num_batches_tracked")}
    with torch.no_grad():
        encoder.features(x, wanted)
    for hook in hooks:
        hook.remove()
    counts.update({name: int(encoder.get_buffer(name)) - before for name, before in seen.items()})
    return counts


def check_frozen(encoder: Encoder, x: Tensor) -> None:
    """Check that freezing leaves nothing to train and nothing that moves; the encoder is left frozen."""
    encoder.freeze()
    encoder.train()
    assert not any(m.training for m in encoder.modules()), "a frozen encoder stays in eval mode"
    assert not any(p.requires_grad for p in encoder.parameters()), "a frozen encoder has nothing to train"
    before = encoder.weights_digest()
    first = encoder.embed(x)
    outputs = [first, *encoder.pyramid(x)]
    assert not any(o.requires_grad for o in outputs), "a frozen encoder keeps no graph"
    assert encoder.weights_digest() == before, "a frozen encoder does not change, its buffers neither"
    assert torch.equal(encoder.embed(x), first), "a frozen encoder is deterministic"


def check_neck(neck: nn.Module, info: FeatureInfo, sizes: Sequence[tuple[int, int]] = SIZES) -> None:
    """Check that a neck returns the maps that its ``info`` announces, and that gradients reach all of it."""
    out = neck.info
    assert isinstance(out, FeatureInfo)
    for size in sizes:
        features = random_features(info, size)
        assert isinstance(features, list)
        maps = neck(features, size)
        _check_features(maps, torch.zeros(2, out.embed_dim), out, size, 2)
        neck.zero_grad(set_to_none=True)
        _backward(maps)
        _check_gradients(neck)


def check_decoder(decoder: Decoder, sizes: Sequence[tuple[int, int]] = SIZES) -> None:
    """Check shapes at several sizes, gradients to every parameter and to the features, and half precision."""
    said = {attribute: getattr(decoder, attribute, None) for attribute in KINDS}
    try:
        check_kinds(type(decoder).__name__, said)
    except ConfigError as error:
        raise AssertionError(str(error)) from error
    assert decoder.consumes != "logits", "a decoder of an encoder's own logits cannot be checked without the encoder"
    for size in sizes:
        features = random_features(decoder.info, size, decoder.consumes)
        decoder.train()
        decoder.zero_grad(set_to_none=True)
        logits = decoder(features, size)
        classes = decoder.num_classes
        shapes = {"label": (2, classes), "mask": (2, classes, *size), "score": (2,), "embedding": (2, logits.shape[-1])}
        expected = shapes[decoder.output]
        assert logits.shape == expected, f"logits {tuple(logits.shape)} instead of {expected}"
        _backward([logits])
        _check_gradients(decoder)
        decoder.eval()
        for dtype in (torch.bfloat16, torch.float16):
            with torch.autocast("cpu", dtype):
                assert decoder(features, size).isfinite().all(), f"not finite under autocast to {dtype}"


def check_loss(loss: Loss, num_classes: int, ignore_index: int | None = 255) -> None:
    """Check value and gradient for each of the loss's tasks: scalar, finite, better for better outputs, ignoring.

    Args:
        loss: A loss built for ``num_classes`` and ``ignore_index``.
        num_classes: Number of classes.
        ignore_index: What the loss was told to ignore.
    """
    assert set(loss.tasks) <= set(TASKS), loss.tasks
    for task in loss.tasks:
        logits, target, right = _example(task, num_classes)
        known = _known(loss, logits)
        logits.requires_grad_()
        value = loss(logits, target, **known)
        assert value.ndim == 0, "a loss is a scalar"
        assert value.isfinite(), "a loss is finite"
        value.backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all(), "the gradient is finite"
        assert torch.allclose(loss(logits, target.to(torch.uint8), **known), value), "uint8 targets count as int64 ones"
        if right is not None:
            assert loss(4 * right, target, **known) < loss(-4 * right, target, **known), "right outputs are better"
        for dtype in (torch.float16, torch.bfloat16):
            half = loss(logits.detach().to(dtype), target, **known)
            assert half.dtype == torch.float32, "half precision is widened"
        if task in ("classification", "segmentation", "multilabel"):
            chances = loss.probabilities(logits.detach())
            assert chances.shape == logits.shape, "probabilities have the shape of the logits"
            assert ((chances >= 0) & (chances <= 1)).all(), "probabilities lie in [0, 1]"
        if ignore_index is not None and task in ("classification", "segmentation"):
            _check_ignoring(loss, logits.detach(), target, ignore_index, known)
        if task == "multilabel":
            _check_ignoring(loss, logits.detach(), target, 255, known)
        if loss.soft_targets and task in ("classification", "segmentation", "multilabel"):
            _check_soft(loss, logits.detach(), target, ignore_index, known)


def _check_soft(loss: Loss, logits: Tensor, target: Tensor, ignore_index: int | None, known: dict[str, object]) -> None:
    """Check that probabilities of 0 and 1 count as the classes do, and that pixels without any are left out."""
    soft = target.float()
    if target.shape != logits.shape:
        soft = nn.functional.one_hot(target, logits.shape[1]).movedim(-1, 1).float()
    pairs = [(target, soft)]
    if logits.ndim == 4 and ignore_index is not None:
        left_out = torch.arange(target.numel()).reshape(target.shape) % 3 == 0
        pairs.append((target.masked_fill(left_out, ignore_index), soft * ~left_out[:, None]))
    for hard, probabilities in pairs:
        results = []
        for given in (hard, probabilities):
            x = logits.clone().requires_grad_()
            value = loss(x, given, **known)
            results.append((value, *torch.autograd.grad(value, x)))
        for found, expected in zip(results[1], results[0], strict=True):
            assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6), "probabilities of 0 and 1 count as classes do"
    none = loss(logits.clone().requires_grad_(), 0 * soft, **known)
    assert none.isfinite(), "a loss is finite where nothing counts"
    assert none.requires_grad, "there is a graph where nothing counts"


def _example(task: str, num_classes: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Outputs and targets of a task, and outputs that are right where larger ones are."""
    if task == "embedding":
        return torch.randn(8, 5), torch.arange(8) // 2 % 2, None
    if task == "anomaly":
        return torch.rand(6) + 0.1, torch.arange(6) % 2, None
    if task == "multilabel":
        target = torch.arange(6 * num_classes).reshape(6, num_classes) % 2
        return torch.randn(6, num_classes), target, 2 * target.float() - 1
    shape = (6,) if task == "classification" else (2, 7, 5)
    target = torch.arange(int(torch.tensor(shape).prod())).reshape(shape) % num_classes
    right = nn.functional.one_hot(target, num_classes).movedim(-1, 1).float()
    return torch.randn(shape[0], num_classes, *shape[1:]), target, right


def _known(loss: Loss, logits: Tensor) -> dict[str, object]:
    """What the loss needs beside logits and targets."""
    inputs = torch.randn(len(logits), 3, 4, 4)

    def score(x: Tensor) -> Tensor:
        return x.flatten(1).square().sum(1)

    known = {"features": torch.randn(len(logits), 7), "inputs": inputs, "score": score}
    return {name: known[name] for name in loss.needs}


def random_features(
    info: FeatureInfo, size: tuple[int, int], consumes: str = "pyramid", batch: int = 2
) -> Tensor | list[Tensor]:
    """Return features that need gradients, as an encoder with this ``info`` would give for images of this size."""
    if consumes == "embedding":
        return torch.randn(batch, info.embed_dim, requires_grad=True)
    return [
        torch.randn(batch, c, -(-size[0] // s), -(-size[1] // s), requires_grad=True)
        for c, s in zip(info.channels, info.strides, strict=True)
    ]


def _check_features(
    maps: list[Tensor], embedding: Tensor, info: FeatureInfo, size: tuple[int, int], batch: int
) -> None:
    assert embedding.shape == (batch, info.embed_dim), f"embedding {tuple(embedding.shape)}, info {info.embed_dim}"
    expected = [
        (batch, c, -(-size[0] // s), -(-size[1] // s)) for c, s in zip(info.channels, info.strides, strict=True)
    ]
    found = [tuple(m.shape) for m in maps]
    assert found == expected, f"maps {found} instead of {expected} for an image of {size}"


def _backward(outputs: Sequence[Tensor]) -> None:
    # Random weights, since the plain sum behind a normalisation is constant.
    torch.stack([(o * torch.randn_like(o)).sum() for o in outputs]).sum().backward()


def _check_gradients(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, f"no gradient reaches {name}"
        assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"


def _check_ignoring(loss: Loss, logits: Tensor, target: Tensor, ignore_index: int, known: dict[str, object]) -> None:
    part = target.clone()
    part.view(-1)[::3] = ignore_index
    hidden = part == ignore_index
    hidden = hidden if hidden.shape == logits.shape else hidden[:, None]
    moved = torch.where(hidden, torch.randn_like(logits) * 100, logits).requires_grad_()
    value = loss(moved, part, **known)
    assert torch.allclose(value, loss(logits, part, **known)), "what is ignored does not count"
    value.backward()
    assert moved.grad is not None
    assert (moved.grad * hidden == 0).all(), "what is ignored gets no gradient"
    logits = logits.clone().requires_grad_()
    nothing = loss(logits, torch.full_like(target, ignore_index), **known)
    assert nothing == 0, "if everything is ignored the loss is 0"
    nothing.backward()
    assert logits.grad is not None
    assert (logits.grad == 0).all(), "if everything is ignored there is no gradient"
