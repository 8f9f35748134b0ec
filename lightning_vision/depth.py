"""The layers of a network from its input to its output, for learning rates that fall with the depth."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
# A block has more parts than a convolution with its norm; a chain of blocks is what most of a network consists of.
BLOCK_PARTS, MOST = 3, 0.5
# A sequence of bare layers with more weights than a stem or a downsampling has is a network of its own (VGG).
FEW_WEIGHTS = 2


def parameter_layers(network: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters of each layer, from the input to the output.

    A model of timm tells its layers itself (``group_matcher``). In others every block of the chains that most of the
    network consists of is a layer, in the order in which modules were defined, as is what lies before, between and
    behind them.
    """
    for module in network.modules():
        if hasattr(module, "group_matcher") and _count(module) == _count(network):
            return _timm_layers(module)
    while len(parts := _parts(network)) == 1 and not list(network.parameters(recurse=False)):
        network = parts[0]
    layers: list[list[nn.Parameter]] = []
    joins = False
    for bare, parameters in _walk(network):
        if bare and joins:
            layers[-1] += parameters
        else:
            layers.append(list(parameters))
        joins = bare
    return layers


def _timm_layers(model: nn.Module) -> list[list[nn.Parameter]]:
    from timm.models import group_parameters

    matcher = model.group_matcher(coarse=False)  # type: ignore[operator]
    layer_of = group_parameters(model, matcher, reverse=True)
    layers: list[list[nn.Parameter]] = [[] for _ in range(max(layer_of.values()) + 1)]
    for name, parameter in model.named_parameters():
        layers[layer_of[name]].append(parameter)
    return layers


def _walk(module: nn.Module) -> Iterator[tuple[bool, list[nn.Parameter]]]:
    """Yield the parameters of each block; True with bare layers and parameters, which join their neighbours."""
    if own := list(module.parameters(recurse=False)):
        yield True, own
    parts = _parts(module)
    if isinstance(module, CONTAINERS) and not any(_parts(part) for part in parts):
        yield from ((False, layer) for layer in _by_weight(parts))
        return
    for part in parts:
        if _leads_on(part, block=isinstance(module, CONTAINERS)):
            yield from _walk(part)
        else:
            yield not _parts(part), list(part.parameters())


def _by_weight(parts: list[nn.Module]) -> list[list[nn.Parameter]]:
    """Each convolution or linear layer with the norms behind it."""
    layers: list[list[nn.Parameter]] = []
    for part in parts:
        if _has_weight(part) or not layers:
            layers.append([])
        layers[-1] += part.parameters()
    return layers


def _leads_on(module: nn.Module, block: bool) -> bool:
    """Whether a module holds a chain of blocks, or a piece of it; ``block``: it may be one itself."""
    parts = _parts(module)
    if isinstance(module, CONTAINERS):
        return any(_parts(part) for part in parts) or sum(_has_weight(part) for part in parts) > FEW_WEIGHTS
    if len(parts) == 1 and not block:
        return _leads_on(parts[0], block)
    chains = [part for part in parts if isinstance(part, CONTAINERS) and _is_chain(part)]
    return sum(_count(part) for part in chains) > MOST * _count(module)


def _is_chain(container: nn.Module) -> bool:
    parts = _parts(container)
    leaves = [sum(not _parts(m) for m in part.modules() if _count(m)) for part in parts]
    return len(parts) > 1 and len({type(part) for part in parts}) == 1 and min(leaves) >= BLOCK_PARTS


def _parts(module: nn.Module) -> list[nn.Module]:
    return [child for child in module.children() if _count(child)]


def _has_weight(module: nn.Module) -> bool:
    return any(parameter.ndim > 1 for parameter in module.parameters())


def _count(module: nn.Module) -> int:
    return sum(1 for _ in module.parameters())
