"""Which precision, memory format and compilation make the training steps of a run fastest, by measuring some."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, cast

import torch
from torch import nn

from lightning_vision.compiled import compiled_steps, first_lines
from lightning_vision.data.datamodule import VisionDataModule
from lightning_vision.module import VisionModule
from lightning_vision.tuning.trial import copy_of, first_batches, steps_of_run, trial_trainer
from lightning_vision.types import Batch

SETTINGS = ("precision", "channels_last", "compile")
# What a way must save to be taken instead of the plain one, as a share of its time.
GAIN = 0.03
# Steps of each way that are measured, after one that is not counted.
FEWEST, MOST = 3, 12
# What measuring may cost, as a share of the steps of the run.
SHARE = 0.02
# Seconds of training below which compiling, some ten seconds to minutes, does not pay or is not worth the try.
WORTH_COMPILING = 600.0
# A way that differs by more from the loss of the plain one, relative and absolute, computes something else.
TOLERANCE = (0.05, 0.02)


@dataclass(frozen=True)
class Way:
    """A way to compute the same step."""

    precision: str
    channels_last: bool = False
    compile: bool = False

    def __str__(self) -> str:
        more = [" channels_last"] * self.channels_last + [" compiled"] * self.compile
        return self.precision + "".join(more)


@dataclass
class Measured:
    """Steps of one way: seconds of the processor or the GPU, of the clock, and losses."""

    taken: list[float] = field(default_factory=list)
    elapsed: list[float] = field(default_factory=list)
    wrong: str | None = None

    @property
    def median(self) -> float:
        """Of the processor or the GPU, seconds; infinite where the way cannot be used."""
        return math.inf if self.wrong or not self.taken else statistics.median(self.taken)


class Steps:
    """Training steps of copies of a module on some of its batches, without the optimizer.

    There is one copy for each memory format, and gradients only during a step, so that this takes no more memory than
    the run with its optimizer does.

    Args:
        module: What is copied.
        batches: What the steps are made on, without augmentation (but for tasks that compare views).
        config: The config of the run.
        device: Where.
    """

    def __init__(
        self, module: VisionModule, batches: Sequence[Batch], config: Mapping[str, Any], device: torch.device
    ) -> None:
        self.module, self.config, self.device = module, config, device
        self.batches = [module.transfer_batch_to_device(batch, device, 0) for batch in batches]
        # All ways keep the weights in the same precision: of those that are compared, none converts them.
        self._copies: dict[bool, VisionModule] = {}
        self._open: dict[Way, tuple[Any, dict[str, Any]]] = {}
        self.results: dict[Way, Measured] = {}
        self._losses: dict[int, float] = {}

    def once(self, way: Way, turn: int, counts: bool = True) -> Measured:
        """Make one step and note its cost; the first way that makes a turn gives the loss for the others."""
        result = self.results.setdefault(way, Measured())
        try:
            self._once(way, turn, counts, result)
        except torch.OutOfMemoryError:
            result.wrong = result.wrong or "does not fit into memory"
        for copy in self._copies.values():
            copy.zero_grad(set_to_none=True)
        return result

    def _once(self, way: Way, turn: int, counts: bool, result: Measured) -> None:
        copy, plugin = self._opened(way)
        batch = self.batches[turn % len(self.batches)]
        copy.on_train_batch_start(batch, turn)
        clock = _Clock(self.device)
        with plugin.train_step_context():
            loss = copy.training_step(plugin.convert_input(batch), turn)
        scaler = getattr(plugin, "scaler", None)
        (loss if scaler is None else scaler.scale(loss)).backward()
        taken, elapsed = clock.stop()
        if counts:
            result.taken.append(taken)
            result.elapsed.append(elapsed)
        value = float(loss.detach())
        expected = self._losses.setdefault(turn, value)
        relative, absolute = TOLERANCE
        if not math.isfinite(value):
            result.wrong = result.wrong or "its loss is not finite"
        elif math.isfinite(expected) and abs(value - expected) > relative * abs(expected) + absolute:
            result.wrong = result.wrong or f"its loss is {value:.4g} instead of {expected:.4g}"
        elif not counts and scaler is None and not _finite(copy):
            result.wrong = result.wrong or "its gradient is not finite"

    def _opened(self, way: Way) -> tuple[VisionModule, Any]:
        if way not in self._open:
            plugin = trial_trainer(self.config, precision=way.precision, max_steps=1).precision_plugin
            if way.channels_last not in self._copies:
                self._copies[way.channels_last] = self._copy(plugin, way.channels_last)
            self._open[way] = plugin, compiled_steps(self._copies[way.channels_last]) if way.compile else {}
        plugin, compiled = self._open[way]
        copy = self._copies[way.channels_last]
        copy.compiled = compiled
        return copy, plugin

    def _copy(self, plugin: Any, channels_last: bool) -> VisionModule:
        copy = copy_of(self.module).to(self.device)
        if copy.views == 1:
            copy.augmentation = nn.ModuleList()
        if channels_last:
            copy.use_channels_last()
        return cast(VisionModule, plugin.convert_module(copy)).train()

    def close(self, way: Way) -> None:
        """Free the memory of a way that no other one needs."""
        self._open.pop(way, None)
        needed = {other.channels_last for other in self._open}
        self._copies = {last: copy for last, copy in self._copies.items() if last in needed}


class _Clock:
    """Seconds of the processor, all threads, or on a GPU of its own time line; and of the wall."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        if self.cuda:
            self.events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            torch.cuda.synchronize()
            self.events[0].record()
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def stop(self) -> tuple[float, float]:
        if self.cuda:
            self.events[1].record()
            torch.cuda.synchronize()
            taken = self.events[0].elapsed_time(self.events[1]) / 1000
        else:
            taken = time.process_time() - self.cpu
        return taken, time.perf_counter() - self.wall


def _finite(module: nn.Module) -> bool:
    return all(bool(p.grad.isfinite().all()) for p in module.parameters() if p.grad is not None)


def choose_way(
    config: dict[str, Any], module: VisionModule, data: VisionDataModule, device: torch.device, processes: int = 1
) -> dict[str, str]:
    """Put the fastest way into the config where it says ``auto``; return why, by setting.

    The plain way (fp32, contiguous, not compiled) is the reference, and is kept unless another is faster by ``GAIN``.
    """
    settings = config["trainer"]
    asked = [name for name in SETTINGS if settings.get(name) == "auto"]
    plain = Way(
        "32-true" if "precision" in asked else str(settings["precision"]),
        settings.get("channels_last") is True,
    )
    ways = _ways(plain, asked, device)
    total = steps_of_run(config, data, processes)
    rounds = MOST if math.isinf(total) else min(MOST, int(SHARE * total / len(ways)) - 1)
    why = _nothing_to_measure(module, device, rounds, total)
    best, reasons = plain, {}
    if why is None:
        steps = Steps(module, first_batches(data, FEWEST, training=module.views > 1), config, device)
        _measure(steps, ways, rounds)
        for way in ways[1:]:
            if steps.results[way].median < (1 - GAIN) * steps.results[best].median:
                best = way
        for way in ways:
            if way != best:
                steps.close(way)
        for name in asked:
            reasons[name] = _told(steps, ways, best, plain)
        if "compile" in asked:
            best, reasons["compile"] = _compiled(steps, best, rounds, total)
    else:
        reasons = dict.fromkeys(asked, why)
    settings |= {name: getattr(best, name) for name in asked}
    return reasons


def _ways(plain: Way, asked: Sequence[str], device: torch.device) -> list[Way]:
    """The plain way first, then those that change less."""
    precisions = [plain.precision]
    if "precision" in asked and device.type in ("cpu", "cuda"):
        if device.type == "cpu" or torch.cuda.is_bf16_supported():
            precisions.append("bf16-mixed")
        if device.type == "cuda":
            precisions.append("16-mixed")
    formats = [False, True] if "channels_last" in asked else [plain.channels_last]
    return [Way(precision, last) for last, precision in product(formats, precisions)]


def _nothing_to_measure(module: VisionModule, device: torch.device, rounds: int, total: float) -> str | None:
    if device.type not in ("cpu", "cuda"):
        return f"nothing is measured on {device.type}"
    if module.embeddings is not None:
        return "the encoder runs once and its features are cached, so that nothing is to be gained"
    if rounds < FEWEST:
        return f"a run of {total:.0f} steps is too short for measuring to pay"
    return None


def _measure(steps: Steps, ways: Sequence[Way], rounds: int) -> None:
    """Let the ways take turns; those that are far behind are left out before long."""
    plain, alive, slowest = ways[0], list(ways), math.inf
    for turn in range(rounds + 1):
        for way in list(alive):
            start = time.perf_counter()
            result = steps.once(way, turn, counts=turn > 0)
            took = time.perf_counter() - start
            late = turn == 0 and took > slowest
            if math.isinf(slowest) and not result.wrong:
                slowest = 5 * took
            behind = turn >= FEWEST and result.median > 1.2 * min(r.median for r in steps.results.values())
            if result.wrong or (way != plain and (late or behind)):
                alive.remove(way)
                steps.close(way)


def _told(steps: Steps, ways: Sequence[Way], best: Way, plain: Way) -> str:
    """The choice and all that was measured, in a line."""
    reference = steps.results[plain].median
    share = steps.results[best].median / reference
    count = len(steps.results[best].taken)
    said = f"{share:.2f} of {plain}" if best != plain else f"no other is faster by {GAIN:.0%}"
    if math.isinf(reference):
        said = "nothing can be measured" if best == plain else f"{plain} cannot be used"
    found = []
    for way in ways:
        result = steps.results[way]
        slow = "too slow" if not result.taken else f"{result.median * 1000:.4g} ms"
        found.append(f"{way} {result.wrong or slow}")
    kind = "GPU" if steps.device.type == "cuda" else "CPU"
    return f"{said}; {count} steps each, {kind} time: {', '.join(found)}"


def _compiled(steps: Steps, best: Way, rounds: int, total: float) -> tuple[Way, str]:
    """Whether to compile the best way, and why."""
    eager = steps.results[best]
    if eager.wrong or not eager.taken:
        return best, "nothing can be measured"
    left = total * statistics.median(eager.elapsed)
    if left < WORTH_COMPILING:
        return best, f"training takes about {left:.0f} s, too short for compiling to pay"
    way = replace(best, compile=True)
    start = time.perf_counter()
    try:
        for turn in range(2):  # the second compiles what only shows in the second step, if anything
            steps.once(way, turn, counts=False)
        compiling = time.perf_counter() - start
        for turn in range(1, rounds + 1):
            steps.once(best, turn)
            steps.once(way, turn)
            if steps.results[way].wrong:
                break
    except Exception as error:  # dynamo and the compilers behind it raise nearly every type
        return best, f"compiling fails here: {first_lines(error)}"
    finally:
        steps.close(way)
        with suppress(AttributeError):
            torch.compiler.reset()
    result = steps.results[way]
    if result.wrong:
        return best, result.wrong
    share = result.median / eager.median
    gain = total * (statistics.median(eager.elapsed) - statistics.median(result.elapsed))
    said = f"{share:.2f} of {best}; it saves {gain:.0f} s and takes {compiling:.0f} s"
    return (way if share < 1 - GAIN and gain > compiling else best), said
