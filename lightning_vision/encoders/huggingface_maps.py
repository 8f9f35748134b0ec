"""Feature maps out of any vision model of the transformers library: where they are is found out by running it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_vision.encoders.fixed_size import pad_to_least, resize_image, resize_maps
from lightning_vision.errors import ConfigError

# Maps that a one-scale model (ViT) returns, from evenly spread depths.
DEPTHS = 4
# What models raise at a size that they cannot take.
SIZE_ERRORS = (RuntimeError, ValueError, IndexError, TypeError, AttributeError)


@dataclass(frozen=True)
class Layout:
    """Where a model keeps its feature maps, and which images it takes.

    Args:
        levels: Positions of the maps among the hidden states, fine to coarse.
        channels: Channels of each.
        strides: Pixels per cell of each.
        embed_dim: Length of the embedding.
        options: Further arguments of ``forward``.
        prefix: Tokens in front of the patches; None: the hidden states are maps, not tokens.
        norm: Name of the final norm, which the tokens of all depths go through.
        multiple: Height and width must be multiples of this.
        least: Smaller images are padded to this size, in pixels.
        fixed: Height and width of a model that is tied to one size; images are resized to it.
        remembers: Whether an image leaves something behind in the model: Swin's windows shrink for good when they have
            seen a small one. It is put right after each call, so that results do not depend on what came before.
    """

    levels: tuple[int, ...]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    options: dict[str, Any]
    embed_dim: int = 0
    prefix: int | None = None
    norm: str | None = None
    multiple: int = 1
    least: tuple[int, int] = (1, 1)
    fixed: tuple[int, int] | None = None
    remembers: bool = False


class Seen(NamedTuple):
    """A batch of images, and what a model made of it.

    Args:
        image: The images as the model takes them.
        size: Their height and width before that.
        output: The output of the model, with its hidden states if they were asked for; None: it was not run.
    """

    image: Tensor
    size: tuple[int, int]
    output: Any = None


def see(model: Any, layout: Layout, x: Tensor, wanted: Sequence[str]) -> Seen:
    """Run a model for its ``embedding``, its ``pyramid``, or both."""
    image, size = _sized(layout, x), (x.shape[-2], x.shape[-1])
    if "pyramid" in wanted:
        return Seen(image, size, _run(model, layout, image, output_hidden_states=True))
    return Seen(image, size, _run(model, layout, image) if "embedding" in wanted else None)


def embedding(layout: Layout, seen: Seen) -> Tensor:
    """Return ``(B, embed_dim)``: the pooled output, else the class token, else the mean of the last map."""
    output = seen.output
    pooled = getattr(output, "pooler_output", None)
    if pooled is None:
        last = output.last_hidden_state
        pooled = last.mean((2, 3)) if last.ndim == 4 else last[:, 0] if layout.prefix else last.mean(1)
    return pooled.flatten(1)


def pyramid(model: Any, layout: Layout, seen: Seen) -> list[Tensor]:
    """Return the maps, fine to coarse."""
    states = _hidden_states(seen.output)
    maps = [states[i] for i in layout.levels]
    if layout.prefix is not None:
        norm = model.get_submodule(layout.norm) if layout.norm else nn.Identity()
        rows, columns = (side // layout.strides[0] for side in seen.image.shape[-2:])
        patches = slice(layout.prefix, layout.prefix + rows * columns)
        maps = [norm(tokens)[:, patches].mT.unflatten(2, (rows, columns)) for tokens in maps]
    if layout.fixed is not None:
        return resize_maps(maps, layout.strides, seen.size)
    return maps


def logits(model: Any, layout: Layout, seen: Seen) -> Tensor:
    """Return the output of a model with a classifier.

    It runs again for them: in the library a classifier has no way from the features of its model to the logits.
    """
    found: Tensor = _run(model, layout, seen.image).logits
    return found


@torch.no_grad()
def find_layout(model: Any, num_channels: int) -> Layout:
    """Find out strides, channels and sizes, by running a model in eval mode on a few small images.

    Raises:
        ConfigError: The model gives neither maps nor the tokens of patches.
    """
    forward = inspect.signature(model.forward).parameters
    options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in forward else {}
    stem = first_conv(model)
    patch = stem.stride[0] if stem is not None else 16
    side = patch * max(2, 64 // patch)
    sizes = [(side, 2 * side)]
    native = getattr(model.config, "image_size", None)
    if native is not None:
        rows, columns = (native, native) if isinstance(native, int) else native
        sizes += [(rows, 2 * columns), (rows, columns)]
    error: Exception | None = None
    kept = _numbers(model)
    remembers = False
    for i, size in enumerate(sizes):
        try:
            layout = _read(model, options, num_channels, patch, size)
        except SIZE_ERRORS as caught:
            error = caught
            continue
        finally:
            remembers |= _restore(model, kept)
        layout = replace(layout, remembers=remembers)
        if i > 0:
            layout = replace(layout, least=sizes[2], fixed=sizes[2] if i == 2 else None)
        layout = replace(layout, multiple=_multiple(model, layout, num_channels))
        if not _maps_at(model, layout, num_channels, (layout.multiple, layout.multiple)):
            layout = replace(layout, least=(side, side))
        image = torch.zeros(1, num_channels, *size)
        return replace(layout, embed_dim=embedding(layout, see(model, layout, image, ("embedding",))).shape[1])
    raise ConfigError(
        "The model gives no feature maps that can be used.",
        given=type(model).__name__,
        expected="a model of images whose hidden states are maps, or the tokens of patches in their order",
        override=["encoder=timm", "encoder=dinov2"],
    ) from error


def first_conv(model: nn.Module) -> nn.Conv2d | None:
    """Return the convolution that sees the image."""
    return next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)


def _run(model: Any, layout: Layout, x: Tensor, **more: Any) -> Any:
    kept = _numbers(model) if layout.remembers else []
    output = model(pixel_values=x, **layout.options, **more)
    _restore(model, kept)
    return output


def _hidden_states(output: Any) -> list[Tensor]:
    """Return the hidden states, as maps where the model gives both."""
    states = list(getattr(output, "reshaped_hidden_states", None) or output.hidden_states)
    if output.last_hidden_state.ndim == 4:  # some models have one more layer behind the last of them
        states.append(output.last_hidden_state)
    return states


def _read(model: Any, options: dict[str, Any], num_channels: int, patch: int, size: tuple[int, int]) -> Layout:
    image = torch.linspace(-1, 1, num_channels * size[0] * size[1]).reshape(1, num_channels, *size)
    moved = image.clone()
    moved[..., :patch, :patch] += 1
    output = model(pixel_values=torch.cat([image, moved]), output_hidden_states=True, **options)
    states = _hidden_states(output)
    by_stride = {}
    for i, state in enumerate(states):
        stride = size[0] // state.shape[-2] if state.ndim == 4 else 0
        if stride > 1 and tuple(state.shape[-2:]) == (size[0] / stride, size[1] / stride):
            by_stride[stride] = i  # the deepest one of each stride
    if by_stride:
        strides = sorted(by_stride)
        levels = [by_stride[s] for s in strides]
        return Layout(tuple(levels), tuple(states[i].shape[1] for i in levels), tuple(strides), options)
    return _read_tokens(model, options, patch, size, states, output)


def _read_tokens(
    model: Any, options: dict[str, Any], patch: int, size: tuple[int, int], states: list[Tensor], output: Any
) -> Layout:
    if len({s.shape for s in states}) != 1 or states[0].ndim != 3:
        raise ValueError("the hidden states have different shapes")
    # In front of the first block, one changed patch changes one token.
    change = (states[0][0] - states[0][1]).abs().amax(-1)
    changed = (change > 0.01 * change.max()).nonzero().flatten().tolist()
    count = (size[0] // patch) * (size[1] // patch)
    if len(changed) != 1 or changed[0] + count > len(change):
        raise ValueError("the tokens are not those of the patches in their order")
    blocks = len(states) - 1
    levels = sorted({math.ceil((i + 1) * blocks / DEPTHS) for i in range(DEPTHS)})
    return Layout(
        levels=tuple(levels),
        channels=(states[0].shape[-1],) * len(levels),
        strides=(patch,) * len(levels),
        options=options,
        prefix=changed[0],
        norm=_final_norm(model, states[-1], output),
    )


def _final_norm(model: Any, tokens: Tensor, output: Any) -> str | None:
    """Return the norm that leads from the last block to the output; the last one, since new norms are all alike."""
    pooled = getattr(output, "pooler_output", None)
    for name, module in reversed(list(model.named_children())):
        if "Norm" in type(module).__name__:
            normed = module(tokens)
            if torch.allclose(normed, output.last_hidden_state, atol=1e-5):
                return str(name)
            if pooled is not None and torch.allclose(normed[:, 0], pooled, atol=1e-5):
                return str(name)
    return None


def _multiple(model: Any, layout: Layout, num_channels: int) -> int:
    """Return 1 for a model that takes every size, else its coarsest stride."""
    coarsest = layout.strides[-1]
    if layout.prefix is not None or layout.fixed is not None:
        return coarsest
    for size in ((1, 1), (17, 35), (2 * coarsest + 1, 3 * coarsest - 1)):
        maps = _maps_at(model, layout, num_channels, size)
        if [m.shape[-2:] for m in maps] != [_cells(size, s) for s in layout.strides]:
            return coarsest
    return 1


def _maps_at(model: Any, layout: Layout, num_channels: int, size: tuple[int, int]) -> list[Tensor]:
    """Return the maps at a size, none if the model cannot take it."""
    try:
        return pyramid(model, layout, see(model, layout, torch.zeros(1, num_channels, *size), ("pyramid",)))
    except SIZE_ERRORS:
        return []


def _numbers(model: nn.Module) -> list[dict[str, int]]:
    """Return the plain numbers that the modules hold."""
    return [{k: v for k, v in vars(m).items() if isinstance(v, int)} for m in model.modules()]


def _restore(model: nn.Module, kept: Sequence[dict[str, int]]) -> bool:
    """Put the numbers back, and return whether one had changed."""
    changed = False
    for attributes, values in zip(map(vars, model.modules()), kept, strict=False):
        changed |= any(attributes[k] != v for k, v in values.items())
        attributes.update(values)
    return changed


def _cells(size: Sequence[int], stride: int) -> tuple[int, int]:
    return -(-size[0] // stride), -(-size[1] // stride)


def _sized(layout: Layout, x: Tensor) -> Tensor:
    """Resize for a model that is tied to one size, pad for one that has a smallest size."""
    if layout.fixed is not None:
        return resize_image(x, layout.fixed)
    return pad_to_least(x, layout.least)
