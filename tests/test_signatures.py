"""Signatures read from source files, held against what Python itself says after an import."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path

import pytest

from lightning_vision.errors import ConfigError
from lightning_vision.signatures import COMPUTED, REQUIRED, class_constants, classes_in, describe, source_file
from lightning_vision.types import OptionsFrom

FOREIGN = [
    "torch.optim.AdamW",
    "torch.optim.SGD",
    "torch.optim.lr_scheduler.CosineAnnealingLR",
    "torch.nn.CrossEntropyLoss",
    "torch.nn.Linear",
    "lightning.pytorch.Trainer",
    "lightning.pytorch.callbacks.ModelCheckpoint",
    "lightning.pytorch.callbacks.EarlyStopping",
    "lightning.pytorch.loggers.CSVLogger",
]


@pytest.mark.parametrize("target", FOREIGN)
def test_agrees_with_inspect(target: str) -> None:
    module, _, name = target.rpartition(".")
    reference = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    signature = describe(target)
    assert signature is not None
    named = {n: p for n, p in reference.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    assert list(signature.parameters) == list(named)
    for parameter in named.values():
        default = signature.parameters[parameter.name].default
        if default is REQUIRED:
            assert parameter.default is inspect.Parameter.empty
        elif default is not COMPUTED:
            assert default == parameter.default


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that cannot be imported, so that whatever is learnt about it was read."""
    name = f"unimportable_{tmp_path.name.replace('-', '_')}"
    folder = tmp_path / name
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("from .parts import Part as Renamed\nfrom .star import *\nraise SystemError\n")
    (folder / "inner" / "__init__.py").write_text("from ..parts import Base\nraise SystemError\n")
    (folder / "star.py").write_text("class Starred:\n    def __init__(self, x=1): ...\n")
    (folder / "parts.py").write_text(
        '''
from __future__ import annotations
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar
if TYPE_CHECKING:
    from nowhere import Nothing
SIZE = 7

class Base:
    """The base.

    More of it.
    """
    injected: ClassVar[tuple[str, ...]] = ("info", "count")
    output: ClassVar[str] = "label"
    made = dict(a=1)

    def __init__(self, info, count: int, *, width: int = SIZE, name: str = "a" "b", made=len("abc")) -> None:
        raise SystemError

class Part(Base):
    output = "mask"

    @classmethod
    def load(cls, path: str, strict=True): ...

    @staticmethod
    def free(a, b=2): ...

class Loose(Unknown):
    pass

class Open:
    def __init__(self, a=-1.5, **kwargs): ...

@dataclass(frozen=True)
class Record:
    must: int
    kind: ClassVar[str] = "k"
    many: list[int] = field(default_factory=list)
    hidden: int = field(default=0, init=False)
    note: str | None = None

@dataclass
class Longer(Record):
    more: bool = False

def build(a, b=(1, 2)): ...
'''
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_reads_without_importing(package: str) -> None:
    signature = describe(f"{package}.parts.Base")
    assert signature is not None
    assert {n: p.default for n, p in signature.parameters.items()} == {
        "info": REQUIRED,
        "count": REQUIRED,
        "width": 7,
        "name": "ab",
        "made": COMPUTED,
    }
    assert signature.summary == "The base."
    assert signature.injected == ("info", "count")
    assert signature.constants == {"injected": ("info", "count"), "output": "label"}
    assert not [m for m in sys.modules if m.startswith(package)]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Renamed", ["info", "count", "width", "name", "made"]),  # re-exported under another name, __init__ inherited
        ("inner.Base", ["info", "count", "width", "name", "made"]),  # relative import of the parent's module
        ("Starred", ["x"]),
        ("parts.Part.load", ["path", "strict"]),
        ("parts.Part.free", ["a", "b"]),
        ("parts.build", ["a", "b"]),
        ("parts.Record", ["must", "many", "note"]),
        ("parts.Longer", ["must", "many", "note", "more"]),
    ],
)
def test_follows_names(package: str, name: str, parameters: list[str]) -> None:
    signature = describe(f"{package}.{name}")
    assert signature is not None
    assert list(signature.parameters) == parameters


def test_constants_of_a_subclass_win(package: str) -> None:
    assert class_constants(f"{package}.parts.Part") == {"injected": ("info", "count"), "output": "mask"}
    assert class_constants(f"{package}.parts.Record") == {"kind": "k"}


def test_arguments_that_cannot_be_known_are_open(package: str) -> None:
    for name in ("Open", "Loose"):
        signature = describe(f"{package}.parts.{name}")
        assert signature is not None
        assert signature.takes_any
    opened = describe(f"{package}.parts.Open")
    assert opened is not None
    assert opened.parameters["a"].default == -1.5


@pytest.mark.parametrize("name", ["parts.Nothing2", "parts.Part.absent", "nowhere.Part", "parts.SIZE"])
def test_what_is_not_there_is_none(package: str, name: str) -> None:
    assert describe(f"{package}.{name}") is None
    with pytest.raises(ConfigError, match="cannot be found"):
        class_constants(f"{package}.{name}")


def test_a_package_that_is_not_installed() -> None:
    assert source_file("no_such_package_at_all") is None
    assert describe("no_such_package_at_all.module.Class") is None


def test_names_for_suggestions_are_public() -> None:
    names = classes_in("lightning_vision.types")
    assert OptionsFrom.__name__ in names
    assert not [n for n in names if n.startswith("_")]
