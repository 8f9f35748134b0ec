"""One file of conf/ against the class that it names: a setting is written down in one place only."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lightning_vision.config import is_part
from lightning_vision.listing import summary
from lightning_vision.searchpath import owner_of

ATTRIBUTES = {"_target_", "_partial_"}


def check_file(file: Path) -> None:
    """Check that an option's file says what it is, and has the settings and defaults of its classes, in their order.

    An option may also be a variant of a class from another package, with defaults of its own.

    Raises:
        AssertionError: It does not; the message says what is wrong.
    """
    line = summary(file)
    assert 10 <= len(line) <= 140, f"{file}: the listing shows the comment on the first line, of 10 to 140 characters"
    for _, part in parts_in(OmegaConf.to_container(OmegaConf.load(file))):
        own = f"{(owner_of(file) or 'lightning_vision').partition('.')[0]}."
        check_settings(file, part, variant=not part["_target_"].startswith(own))


def parts_in(node: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The parts in a file, with the keys that they stand under."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield key, node
        for name, inner in node.items():
            yield from parts_in(inner, f"{key}.{name}" if key else str(name))


def check_settings(file: Path, part: dict[str, Any], variant: bool = False) -> None:
    """Check that the keys of a part are the arguments of its class, in their order, and the values their defaults.

    Of a class of a library, and of a variant, only the names are checked, which may be some of them.
    """
    module_name, _, class_name = part["_target_"].rpartition(".")
    target = getattr(importlib.import_module(module_name), class_name)
    signature = dict(inspect.signature(target).parameters)
    if getattr(target, "rest_to_base", False):
        # The other arguments are those of its base class, and any of them can be added with a +.
        assert signature.popitem()[1].kind == inspect.Parameter.VAR_KEYWORD
    settings = {k: v for k, v in part.items() if k not in ATTRIBUTES}
    if variant or not is_part(part["_target_"]):
        unknown = sorted(set(settings) - set(signature))
        free = any(p.kind == p.VAR_KEYWORD for p in signature.values())
        assert free or not unknown, f"{file}: {class_name} has no {unknown}"
        return
    assert target.__module__ == module_name, "_target_ names the file that defines the class"
    assert not any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in signature.values()), "all arguments by name"
    injected = set(getattr(target, "injected", ()))
    if not part.get("_partial_"):
        assert injected <= set(signature), f"{class_name} takes {sorted(injected)}"
        assert list(settings) == [n for n in signature if n not in injected], f"{file}: the arguments of {class_name}"
    for name, value in settings.items():
        default = signature[name].default
        chosen_by_file = default is inspect.Parameter.empty
        interpolated = isinstance(value, str) and "${" in value
        if not chosen_by_file and not interpolated:
            written = list(default) if isinstance(default, tuple) else default
            assert value == written, f"{name}: {value!r} in {file.name}, {default!r} in the constructor"
            assert type(value) is type(written) or {type(value), type(written)} <= {int, float}
