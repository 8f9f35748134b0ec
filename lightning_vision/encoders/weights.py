"""Weights from files: reading, checking, and fitting the first convolution to another number of channels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_vision.errors import ConfigError, listed

# Names under which libraries save weights into a folder, in order of preference.
FOLDER_FILES = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin", "model.pth", "pytorch_model.pth")


def weights_file(path: str | Path) -> Path:
    """Return the file that holds the weights: the path itself, or the known name inside a folder.

    Raises:
        ConfigError: If nothing is there.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        for name in FOLDER_FILES:
            if (path / name).is_file():
                return path / name
        found = sorted(p for p in path.iterdir() if p.suffix in {".safetensors", ".pth", ".pt", ".bin"})
        if len(found) == 1:
            return found[0]
        raise ConfigError("The folder holds no weights.", given=path, expected=f"one of {listed(FOLDER_FILES)}")
    if not path.is_file():
        raise ConfigError(
            "The file of weights does not exist.",
            given=path,
            override=["encoder.weights=FILE", "encoder.use_pretrained=false"],
        )
    return path


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from ``.safetensors`` or a torch file (read with ``weights_only=True``), or from a folder.

    The containers that training scripts write (``state_dict``, ``model``, ``model_state_dict``) are opened.

    Raises:
        ConfigError: If there is no file, or if it holds no state dict.
    """
    file = weights_file(path)
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has its own: all mean that the file is not what it claims to be
        raise ConfigError(
            f"The file of weights cannot be read: {error}", given=file, expected=".safetensors or .pth of tensors"
        ) from error
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ConfigError("The file holds no state dict.", given=file, expected="a dict of tensors by name")
    return state


def without_modules(state: dict[str, Tensor], modules: Iterable[str]) -> dict[str, Tensor]:
    """Leave out the tensors of whole modules, such as a classification head."""
    prefixes = tuple(f"{m}." for m in modules)
    return {k: v for k, v in state.items() if not k.startswith(prefixes)} if prefixes else dict(state)


def load_strict(module: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """Load a state dict that must have exactly the module's keys and shapes.

    Raises:
        ConfigError: Naming the missing, the unexpected and the differently shaped keys.
    """
    own = module.state_dict()
    # Files from before torch 0.4.1 have no such counters, which only matter for momentum=None.
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in own]
    shapes = [
        f"{k} {tuple(state[k].shape)} instead of {tuple(own[k].shape)}"
        for k in own
        if k in state and own[k].shape != state[k].shape
    ]
    if missing or unexpected or shapes:
        found = [
            f"{title}: {listed(names, 3)}"
            for title, names in (("missing", missing), ("unexpected", unexpected), ("shape", shapes))
            if names
        ]
        raise ConfigError(
            "The weights are not those of this encoder.",
            given=f"{origin}; {'; '.join(found)}",
            expected=f"exactly the {len(own)} tensors of this architecture; the file may be of another variant",
            override=["encoder.weights=FILE", "encoder.use_pretrained=false"],
        )
    module.load_state_dict(state, strict=False)


def adapt_conv_weight(weight: Tensor, num_channels: int) -> Tensor:
    """Fit the kernel of a first convolution to another number of input channels (the rule that timm uses).

    One channel gets the sum over the pretrained channels, so that a grey image gives what its RGB copy gave. Otherwise
    the kernels are repeated in order (R, G, B, R, ...) and scaled by ``old / new``, which keeps the size of the output.

    Args:
        weight: ``(out, in, kh, kw)``.
        num_channels: The new ``in``.
    """
    old = weight.shape[1]
    if num_channels == old:
        return weight
    if num_channels == 1:
        return weight.sum(1, keepdim=True)
    return weight.repeat(1, -(-num_channels // old), 1, 1)[:, :num_channels] * (old / num_channels)


def adapt_first_conv(root: nn.Module, name: str, num_channels: int, pretrained: bool) -> None:
    """Replace the first convolution, if needed, by one with ``num_channels`` inputs.

    Args:
        root: The network.
        name: Dotted name of the convolution.
        num_channels: Channels of the images.
        pretrained: Whether the kernels are worth keeping (``adapt_conv_weight``); else new random ones are drawn.
    """
    conv = root.get_submodule(name)
    if not isinstance(conv, nn.Conv2d):
        raise TypeError(f"{name} is a {type(conv).__name__}, not a convolution")
    if conv.in_channels == num_channels:
        return
    with torch.no_grad():
        if pretrained:
            weight = adapt_conv_weight(conv.weight, num_channels).clone()
        else:
            weight = conv.weight.new_empty(conv.out_channels, num_channels, *conv.kernel_size)
            nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
    conv.in_channels = num_channels
    conv.weight = nn.Parameter(weight.contiguous())


def cannot_load(what: str, error: BaseException, overrides: Sequence[str]) -> ConfigError:
    """Return the error for weights that cannot be had, because the name is wrong or there is no network."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ConfigError(
        f"The pretrained weights cannot be loaded: {reason}",
        given=what,
        expected="a network, or weights on this machine, or random weights",
        override=list(overrides),
    )
