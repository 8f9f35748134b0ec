"""A trial in the process of the sweep leaves nothing behind that the next one could notice."""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Libraries whose run stays open until somebody ends it: which is open, and how it is ended.
_OPEN_RUNS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "wandb": (lambda wandb: getattr(wandb, "run", None), "finish"),
    "mlflow": (lambda mlflow: mlflow.active_run() if hasattr(mlflow, "active_run") else None, "end_run"),
}


@contextmanager
def restored(torch_too: bool = True) -> Iterator[None]:
    """Put back what a run may change in its process, and give its memory back.

    Environment, folder, logging, warnings, signals, random numbers, runs of W&B and MLflow that are open; of torch the
    default dtype, its threads, what is deterministic and how exact products are, the process group and cached memory of
    devices.

    Args:
        torch_too: Import torch first, so that its state is known before a run that uses it; else it is looked after
            only if it is there already.
    """
    if torch_too:
        import torch  # noqa: F401 - its state is read below
    undo = [_runs(), _environment(), _logging(), _warnings(), _signals(), _random(), *_torch()]
    try:
        yield
    finally:
        for put_back in undo:
            put_back()
        free_memory()


def free_memory() -> None:
    """Free what only points at itself, as a trainer and its model do, and hand cached memory of devices back."""
    if figures := sys.modules.get("matplotlib._pylab_helpers"):
        figures.Gcf.destroy_all()
    # Also what was frozen when the first run began: that run's model is among it.
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _environment() -> Callable[[], None]:
    variables, folder = dict(os.environ), os.getcwd()

    def put_back() -> None:
        for name in set(os.environ) - set(variables):
            del os.environ[name]
        os.environ.update({k: v for k, v in variables.items() if os.environ.get(k) != v})
        os.chdir(folder)

    return put_back


def _loggers() -> list[logging.Logger]:
    known = logging.Logger.manager.loggerDict.values()
    return [logging.getLogger(), *(logger for logger in known if isinstance(logger, logging.Logger))]


def _logging() -> Callable[[], None]:
    before = {lo: (lo.level, lo.propagate, lo.disabled, list(lo.handlers), list(lo.filters)) for lo in _loggers()}

    def put_back() -> None:
        for logger in _loggers():
            if logger not in before:
                continue  # of a library that was imported since: as it set itself up
            level, propagate, disabled, handlers, filters = before[logger]
            for handler in [h for h in logger.handlers if h not in handlers]:
                handler.close()
            logger.setLevel(level)
            logger.propagate, logger.disabled = propagate, disabled
            logger.handlers[:], logger.filters[:] = handlers, filters

    return put_back


def _warnings() -> Callable[[], None]:
    filters, shows = warnings.filters[:], warnings.showwarning

    def put_back() -> None:
        warnings.filters[:] = filters  # type: ignore[index]
        warnings._filters_mutated()  # type: ignore[attr-defined]
        warnings.showwarning = shows

    return put_back


def _signals() -> Callable[[], None]:
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    numbers = [
        signal.SIGINT,
        signal.SIGTERM,
        *(getattr(signal, n) for n in ("SIGUSR1", "SIGHUP") if hasattr(signal, n)),
    ]
    handlers = {number: signal.getsignal(number) for number in numbers}

    def put_back() -> None:
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)

    return put_back


def _random() -> Callable[[], None]:
    own = random.getstate()
    numpy: Any = sys.modules.get("numpy")
    arrays = None if numpy is None else numpy.random.get_state()

    def put_back() -> None:
        random.setstate(own)
        if numpy is not None:
            numpy.random.set_state(arrays)

    return put_back


def _torch() -> list[Callable[[], None]]:
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return []
    dtype, threads, precision = (
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
    )
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = {name: getattr(torch.backends.cudnn, name) for name in ("benchmark", "deterministic", "enabled")}
    tf32 = torch.backends.cudnn.allow_tf32
    grad, anomalies = torch.is_grad_enabled(), torch.is_anomaly_enabled()
    state = torch.random.get_rng_state()

    def put_back() -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        torch.set_default_dtype(dtype)
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        for name, value in cudnn.items():
            setattr(torch.backends.cudnn, name, value)
        torch.backends.cudnn.allow_tf32 = tf32
        torch.set_grad_enabled(grad)
        torch.autograd.set_detect_anomaly(anomalies)
        torch.random.set_rng_state(state)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if compiled := sys.modules.get("torch._dynamo"):
            compiled.reset()

    return [put_back]


def _runs() -> Callable[[], None]:
    before = _open_runs()

    def put_back() -> None:
        for name, run in _open_runs().items():
            if run is not None and run is not before.get(name):
                getattr(sys.modules[name], _OPEN_RUNS[name][1])()

    return put_back


def _open_runs() -> dict[str, Any]:
    return {name: find(sys.modules[name]) for name, (find, _) in _OPEN_RUNS.items() if name in sys.modules}
