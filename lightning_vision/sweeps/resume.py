"""The words of a sweep that goes on: those that it was begun with, and what is typed anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_vision.errors import ConfigError, listed
from lightning_vision.overrides import override, override_keys, quote

_FILE = "multirun.yaml"


def resumed(argv: Sequence[str], resume: str) -> list[str]:
    """Put the words of a sweep in the place of ``sweep.resume=FOLDER``; those that are typed anew win.

    Args:
        argv: The words after the program's name.
        resume: The beginning of the word that names the folder.

    Raises:
        ConfigError: There is no sweep in the folder.
    """
    named = next(word for word in argv if word.startswith(resume)).removeprefix(resume).strip("'\"")
    typed = [word for word in argv if not word.startswith(resume)]
    if named in ("", "null"):
        return typed
    folder = Path(named).expanduser()
    if not (folder / _FILE).is_file():
        found = sorted(file.parent for file in folder.parent.glob(f"*/{_FILE}"))
        raise ConfigError(
            "There is no sweep to go on with.",
            given=override("sweep.resume", named),
            expected=f"one of {listed(found, 5)}" if found else f"a folder with {_FILE}",
            override=override("sweep.resume", str(found[-1])) if found else "sweep.resume=multirun/DATE/TIME",
        )
    import yaml

    saved = yaml.safe_load((folder / _FILE).read_text(encoding="utf-8"))["hydra"]["overrides"]
    keys = {*override_keys([word for word in typed if "=" in word]), "hydra.mode", "hydra.sweep.dir"}
    if any(not word.startswith("-") and "=" not in word and not word.startswith("~") for word in typed):
        keys.add("action")
    before = [word for word in [*saved["hydra"], *saved["task"]] if override_keys([word])[0] not in keys]
    # Options and their values stay in front: argparse wants all overrides together.
    at = next((i for i, word in enumerate(typed) if "=" in word and not word.startswith("-")), len(typed))
    return [*typed[:at], *before, f"hydra.sweep.dir={quote(str(folder))}", *typed[at:]]
