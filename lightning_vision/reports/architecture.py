"""What a model consists of: the stages of its encoder, its necks and decoders, with their maps, weights and operations.

All of it is found by sending one image through the model: which weights a map depends on, what a block returns, and how
many multiply-adds each weight takes part in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from lightning_vision.encoders.base import Encoder
from lightning_vision.encoders.inputs import InputsEncoder
from lightning_vision.module import VisionModule
from lightning_vision.optim.groups import parameter_groups

UNUSED = "not used"


@dataclass
class Row:
    """A stage of an encoder, or a block of another part.

    Args:
        name: Of the block.
        stride: Pixels of the image per cell of its map; None where it returns none.
        channels: Of what it returns; None where that is not known.
        size: Height and width of its map, or None.
        parameters: Numbers in its weights.
        trained: Of these, how many are trained.
        multiply_adds: Of a forward pass of one image.
    """

    name: str
    stride: float | None = None
    channels: int | None = None
    size: tuple[int, int] | None = None
    parameters: int = 0
    trained: int = 0
    multiply_adds: int = 0


@dataclass
class Part:
    """A part of a model.

    Args:
        role: ``encoder``, ``inlet``, ``neck``, ``decoder`` or ``loss``.
        kind: What it is.
        output: Name of the output that it belongs to; None for the encoder, and where there is one output.
        rows: Its blocks, in their order.
    """

    role: str
    kind: str
    output: str | None = None
    rows: list[Row] = field(default_factory=list)

    @property
    def total(self) -> Row:
        """Its weights and operations."""
        counts = [(row.parameters, row.trained, row.multiply_adds) for row in self.rows]
        return Row(self.kind, None, None, None, *(sum(column) for column in zip(*counts, strict=True)))


@dataclass
class Rate:
    """Parameters that learn at one rate, or, in the layers of an encoder, at rates that fall from layer to layer.

    Args:
        name: ``encoder`` or ``head``; with ``_no_decay`` what is not decayed.
        lr: The highest rate.
        lowest: The lowest rate.
        layers: Number of different rates.
        weight_decay: Of all of them.
        parameters: Numbers in their weights.
    """

    name: str
    lr: float
    lowest: float
    layers: int
    weight_decay: float
    parameters: int


def rates_of(module: VisionModule) -> list[Rate]:
    """The learning rates of a fit, before its schedule; those of an encoder that is frozen at first included."""
    with nullcontext() if module.freezing is None else module.freezing.lifted():
        factor, decay = module.encoder_lr_factor, module.encoder_layer_decay
        groups = parameter_groups(module.encoder, [module.heads], module.lr, module.weight_decay, factor, decay)
    found: dict[str, list[dict[str, Any]]] = {}
    for group in groups:
        found.setdefault(group["name"], []).append(group)
    rates = []
    for name, same in found.items():
        values = {float(group["lr"]) for group in same}
        count = sum(p.numel() for group in same for p in group["params"])
        rates.append(Rate(name, max(values), min(values), len(values), float(same[0]["weight_decay"]), count))
    return rates


def parts_of(module: VisionModule) -> list[Part]:
    """Take a model apart, at the image size that it was made for.

    A weight of the encoder belongs to the finest map that depends on it, or to the embedding where no map does. What
    the outputs depend on counts; other weights are a row of their own. Multiply-adds are those of convolutions, matrix
    products and attention, half of the operations that ``torch.utils.flop_counter`` counts; those of an operation
    without weights, such as attention, go with the last one before it that has some.

    Args:
        module: It stays as it is.
    """
    size = module.geometry.height, module.geometry.width
    image = torch.zeros(1, *module.geometry.shape, dtype=torch.uint8, device=module.device)
    trained = {id(p) for p in module.parameters() if p.requires_grad}
    encoder, parts = module.encoder, _parts_of_heads(module)
    shown: dict[nn.Module, Tensor] = {}
    with _all_trained(module), sdpa_kernel(SDPBackend.MATH):
        maps = encoder.pyramid(module.normalize(image))
        levels = _reached([[m] for m in maps])
        stages = [
            Row(f"map {i + 1}", stride, m.shape[1], (m.shape[2], m.shape[3]))
            for i, (m, stride) in enumerate(zip(maps, encoder.info.strides, strict=True))
        ]
        del maps
        with _outputs_of([block.module for _, blocks in parts for block in blocks], shown), _Operations() as operations:
            outputs = module.outputs(image)
        (used,) = _reached([[output.logits for output in outputs.values()]])
        del outputs

    embedding, unused = Row("embedding", channels=encoder.info.embed_dim), Row(UNUSED)
    owners: list[tuple[Row, nn.Parameter]] = []
    for parameter in encoder.parameters():
        reached = (row for row, ids in zip(stages, levels, strict=True) if id(parameter) in ids)
        owners.append((next(reached, embedding) if id(parameter) in used else unused, parameter))
    for _, blocks in parts:
        for block in blocks:
            _describe(block.row, shown.get(block.module), size, encoder.info.strides)
            owners += [(block.row, parameter) for parameter in block.parameters]
    _count(owners, trained, operations, stages[0])
    embeds = "embedding" in module.consumed or embedding.parameters
    rows = [*stages, *([embedding] if embeds else []), *([unused] if unused.parameters else [])]
    found = [Part("encoder", _kind(module), None, rows)]
    for part, blocks in parts:
        part.rows = [block.row for block in blocks if block.row.parameters or block.row.multiply_adds]
        found.append(part)
    return found


@dataclass
class _Block:
    row: Row
    module: nn.Module
    parameters: list[nn.Parameter]


def _parts_of_heads(module: VisionModule) -> list[tuple[Part, list[_Block]]]:
    """What follows the encoder; of inlets and losses those that have weights."""
    named = module.named_heads()
    parts = []
    for name, head in named:
        for role, part in (("inlet", head.inlet), ("neck", head.neck), ("decoder", head.decoder), ("loss", head.loss)):
            if part is not None and (role in ("neck", "decoder") or next(part.parameters(), None) is not None):
                kind = type(part).__name__
                short = kind.removesuffix(role.capitalize()) or kind
                parts.append((Part(role, short, name if len(named) > 1 else None), list(_blocks(part))))
    return parts


def _blocks(part: nn.Module) -> Iterator[_Block]:
    """The modules that a part is made of; those in a list or a sequence each by itself."""
    if own := list(part.parameters(recurse=False)):
        yield _Block(Row("own weights"), part, own)
    for name, child in part.named_children():
        inside = list(child.named_children()) if isinstance(child, nn.ModuleList | nn.ModuleDict) else [("", child)]
        for number, block in inside:
            yield _Block(Row(f"{name} {number}".rstrip()), block, list(block.parameters()))


def _kind(module: VisionModule) -> str:
    """The name of the encoder's model, or of its class; and of how many images."""
    encoder, node = module.encoder, module.config.get("encoder", {})
    single = encoder.encoders[0] if isinstance(encoder, InputsEncoder) else encoder
    name = node.get("pretrained_model_name_or_path") or node.get("model_name")
    name = (
        str(name).rstrip("/").rpartition("/")[2]
        if name
        else " ".join(str(node[key]) for key in ("family", "model_variant") if node.get(key) is not None)
    )
    name = name or type(single).__name__
    if not isinstance(encoder, InputsEncoder):
        return name
    return f"{name} for {len(encoder.order)} images" if len(encoder.encoders) == 1 else f"{len(encoder.order)} {name}"


@contextmanager
def _all_trained(module: VisionModule) -> Iterator[None]:
    """Let autograd see all weights, frozen ones too, and nothing learn: in eval mode."""
    flags = {parameter: parameter.requires_grad for parameter in module.parameters()}
    modes = {part: part.training for part in module.modules()}
    encoders = {part: part.trainable for part in module.modules() if isinstance(part, Encoder)}
    try:
        module.eval()
        for encoder in encoders:
            encoder.trainable = True
        for parameter in flags:
            parameter.requires_grad_(parameter.is_floating_point())
        with torch.enable_grad():
            yield
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
        for encoder, trainable in encoders.items():
            encoder.trainable = trainable
        for part, mode in modes.items():
            part.training = mode


def _reached(groups: Sequence[Sequence[Tensor]]) -> list[set[int]]:
    """The ids of the parameters that each group of tensors depends on, and none of the groups before it."""
    seen: set[Any] = set()
    found = []
    for tensors in groups:
        nodes = [node for tensor in tensors if (node := tensor.grad_fn) is not None and node not in seen]
        seen.update(nodes)
        ids = set()
        while nodes:
            node = nodes.pop()
            ids.add(id(getattr(node, "variable", None)))
            for following, _ in node.next_functions:
                if following is not None and following not in seen:
                    seen.add(following)
                    nodes.append(following)
        found.append(ids)
    return found


@contextmanager
def _outputs_of(modules: Sequence[nn.Module], shown: dict[nn.Module, Tensor]) -> Iterator[None]:
    """Note what modules return, where it is one tensor."""

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            shown[module] = output.detach()

    hooks = [module.register_forward_hook(note) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Operations(TorchDispatchMode):
    """Counts operations by the storage of the weight that they are made with, or that was last worked with."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[tuple[tuple[int, ...], int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            storages = tuple(v.untyped_storage()._cdata for v in tree_leaves(args) if isinstance(v, Tensor))
            self.counts.append((storages, int(count(*args, **(kwargs or {}), out_val=made))))
        return made


def _count(owners: Sequence[tuple[Row, nn.Parameter]], trained: set[int], operations: _Operations, first: Row) -> None:
    """Give each row its weights, shared ones once, and its operations; those before any weights go to ``first``."""
    by_storage: dict[int, Row] = {}
    for row, parameter in owners:
        storage = parameter.untyped_storage()._cdata
        if storage not in by_storage:
            by_storage[storage] = row
            row.parameters += parameter.numel()
            row.trained += parameter.numel() * (id(parameter) in trained)
    now = first
    halves: dict[int, int] = {}
    rows = {id(row): row for row in [first, *by_storage.values()]}
    for storages, count in operations.counts:
        now = next((by_storage[storage] for storage in storages if storage in by_storage), now)
        halves[id(now)] = halves.get(id(now), 0) + count
    for key, count in halves.items():
        rows[key].multiply_adds = count // 2


def _describe(row: Row, output: Tensor | None, size: tuple[int, int], strides: Sequence[int]) -> None:
    """Note the shape of what a block returned: maps ``(1, C, h, w)``, tokens ``(1, N, C)`` or vectors ``(1, C)``."""
    if output is None:
        return
    row.channels = output.shape[1] if output.ndim == 4 else output.shape[-1]
    if output.ndim != 4:
        return
    row.size = height, width = output.shape[2], output.shape[3]
    likely = [*strides, *(2**i for i in range(8))]
    fitting = (s for s in likely if (-(-size[0] // s), -(-size[1] // s)) == (height, width))
    row.stride = next(fitting, size[0] / height)
