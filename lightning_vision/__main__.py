"""The command line: ``python -m lightning_vision [action] [key=value ...]``, and the script ``lightning-vision``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from lightning_vision import garbage
from lightning_vision.errors import VisionError

if TYPE_CHECKING:
    from types import TracebackType

    from omegaconf import DictConfig

_FULL_ERROR = "HYDRA_FULL_ERROR"
# Mistakes in runs that a user can mend. They are kept here instead of raised, because Hydra prints a line of its own
# about a raised one; in a sweep the other runs go on.
_failed: list[VisionError] = []
_shown: set[int] = set()  # those that were printed when they happened


def main() -> None:
    """Run the command line. A mistake that a user can mend ends in a message and exit code 2, Ctrl-C in 130."""
    asked_for_traceback = os.environ.get(_FULL_ERROR) == "1"
    garbage.hold()  # until the run has imported what it needs
    try:
        _run()
    except VisionError as error:
        if asked_for_traceback:
            raise
        if id(error) not in _shown:
            print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        if asked_for_traceback:
            raise
        sys.exit(130)  # as a shell reports a process that Ctrl-C ended
    finally:
        garbage.end()


def _run() -> None:
    from lightning_vision.command_line import read
    from lightning_vision.listing import LISTINGS, help_text, listing, show
    from lightning_vision.searchpath import add_conf_dirs

    line = read(sys.argv[1:])
    add_conf_dirs(line.config_dirs)
    if "-h" in line.options:
        show(help_text())
    elif "--version" in line.options:
        from lightning_vision import __version__

        show(f"lightning_vision {__version__}")
    elif line.action in LISTINGS:
        show(listing(LISTINGS[line.action]))
    else:
        sys.argv[1:] = line.words
        runs = not ({"-c", "--cfg", "-i", "--info", "-sc", "--hydra-help", "--experimental-rerun"} & set(line.options))
        if line.ludwig is not None:
            to_stdout = any(word.replace("'", "") == "report=-" for word in line.overrides)
            line.ludwig.show(aside=not runs or to_stdout)
        if runs and not line.multirun and "-cp" not in line.options:
            # Once before Hydra runs, so that a mistake leaves no run folder behind.
            from lightning_vision.config import composed

            with line.ludwig.blamed() if line.ludwig is not None else nullcontext():
                composed(line.overrides, name=line.options.get("-cn", "config"))
        _run_hydra(line.overrides)


def _run_hydra(overrides: list[str]) -> None:
    import hydra

    from lightning_vision.recipes import register_resolvers
    from lightning_vision.searchpath import conf_dir, register_plugins
    from lightning_vision.translate import translate

    register_plugins(added=False)
    register_resolvers()
    run = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(task)
    try:
        with _environment("1"):  # Hydra then raises what it would have printed
            _failed.clear()
            run()
            if _failed:
                raise _failed[0]
    except VisionError:
        raise
    except Exception as error:
        inside = _from_task(error)
        if inside is None and (ours := translate(error, overrides)) is not None:
            raise ours from error
        # The traceback begins where the run's own code begins, unless the whole was asked for.
        raise error.with_traceback(inside if inside and _given != "1" else error.__traceback__) from error.__cause__


def task(cfg: DictConfig) -> float | None:
    """Check one composed config and carry out its action. Returns the figure that a sweep optimises."""
    with _environment(_given):
        try:
            from lightning_vision.checks import check

            _settle(cfg)
            check(cfg)
            from lightning_vision import app

            return app.run(cfg)
        except VisionError as error:
            if _given == "1":
                raise
            _show_in_sweep(error)
            _failed.append(error)
            return None


def _settle(cfg: DictConfig) -> None:
    """Take out what a template or an experiment says of parts that were chosen in another way."""
    from hydra import initialize_config_dir
    from hydra.core.hydra_config import HydraConfig

    from lightning_vision.config import fresh_hydra
    from lightning_vision.recipes import RECIPES, settle
    from lightning_vision.searchpath import conf_dir, register_plugins

    hydra = HydraConfig.get()
    choices, words, name = dict(hydra.runtime.choices), list(hydra.overrides.task), str(hydra.job.config_name)
    if not any(choices.get(recipe) for recipe in RECIPES):
        return  # most runs: Hydra is not set up anew for them
    register_plugins()
    with fresh_hydra(), initialize_config_dir(str(conf_dir()), version_base="1.3"):
        settle(cfg, choices, words, name)


def _show_in_sweep(error: VisionError) -> None:
    """Print the error of one run of a sweep now: the others go on, and the first is raised at the end."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        print(f"Run {HydraConfig.get().job.num} of the sweep: {error}", file=sys.stderr)
        _shown.add(id(error))


_given = os.environ.get(_FULL_ERROR)


@contextmanager
def _environment(full_error: str | None) -> Iterator[None]:
    """Set Hydra's variable for a while: the processes that a run starts must see the user's own value."""
    before = os.environ.pop(_FULL_ERROR, None)
    if full_error is not None:
        os.environ[_FULL_ERROR] = full_error
    try:
        yield
    finally:
        os.environ.pop(_FULL_ERROR, None)
        if before is not None:
            os.environ[_FULL_ERROR] = before


def _from_task(error: Exception) -> TracebackType | None:
    """Return the part of a traceback that begins in the run's own code, None if the error came before it."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code is not task.__code__:
        traceback = traceback.tb_next
    return traceback


if __name__ == "__main__":
    main()
