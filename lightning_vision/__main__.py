"""The command line: ``python -m lightning_vision [action] [key=value ...]``, and the script ``lightning-vision``."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

from lightning_vision import full_error, garbage
from lightning_vision.errors import ConfigError, VisionError

if TYPE_CHECKING:
    from types import TracebackType

    from omegaconf import DictConfig

# A mistake in the run that a user can mend. It is kept here instead of raised, because Hydra prints a line of its own
# about a raised one; with other sweepers than ours the other runs go on.
_failed: list[VisionError] = []


def main() -> None:
    """Run the command line. A mistake that a user can mend ends in a message and exit code 2, Ctrl-C in 130."""
    from lightning_vision.sweeps import child

    child.begin()
    garbage.hold()  # until the run has imported what it needs
    try:
        _run()
    except VisionError as error:
        child.failed(error)
        if full_error.asked():
            raise
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        if full_error.asked():
            raise
        sys.exit(130)  # as a shell reports a process that Ctrl-C ended
    except Exception as error:
        child.failed(error)
        raise
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
        if runs and not line.multirun:
            _refuse_sweep(line.overrides)
        if runs and not line.multirun and "-cp" not in line.options:
            # Once before Hydra runs, so that a mistake leaves no run folder behind.
            from lightning_vision.config import composed

            with line.ludwig.blamed() if line.ludwig is not None else nullcontext():
                composed(line.overrides, name=line.options.get("-cn", "config"))
        _run_hydra(line.overrides)


def _refuse_sweep(words: list[str]) -> None:
    """Raise ConfigError for settings of a sweep, which a single run would ignore."""
    from lightning_vision.overrides import for_shell

    of_sweep = [word for word in words if word.startswith("sweep.")]
    if of_sweep:
        raise ConfigError(
            "The settings of a sweep do nothing in a single run.",
            given=" ".join(map(for_shell, of_sweep)),
            expected="-m, and several values or a range of what is swept over",
            override=f"-m {' '.join(map(for_shell, of_sweep))} lr=1e-3,1e-4",
        )


def _run_hydra(overrides: list[str]) -> None:
    import hydra

    from lightning_vision.recipes import register_resolvers
    from lightning_vision.searchpath import conf_dir, register_plugins
    from lightning_vision.translate import translate

    register_plugins(added=False)
    register_resolvers()
    run = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(task)
    try:
        with full_error.variable("1"):  # Hydra then raises what it would have printed
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
        raise error.with_traceback(
            inside if inside and not full_error.asked() else error.__traceback__
        ) from error.__cause__


def task(cfg: DictConfig) -> float | None:
    """Check one composed config and carry out its action. Returns the figure that a sweep optimises."""
    from lightning_vision.sweeps.clean import restored
    from lightning_vision.sweeps.plugin import is_running

    with full_error.variable(full_error.given):
        try:
            from lightning_vision.checks import check

            _settle(cfg)
            check(cfg)
            from lightning_vision import app

            with restored(cfg.action not in ("check", "cache")) if is_running() else nullcontext():
                return app.run(cfg)
        except VisionError as error:
            if full_error.asked() or is_running():
                raise
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


def _from_task(error: Exception) -> TracebackType | None:
    """Return the part of a traceback that begins in the run's own code, None if the error came before it."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code is not task.__code__:
        traceback = traceback.tb_next
    return traceback


if __name__ == "__main__":
    main()
