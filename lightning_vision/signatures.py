"""What a class takes, read from its source file: the target is found and parsed, never imported.

Importing one encoder imports torch, which costs seconds; a typo in its settings is answered in a fraction of one.
"""

from __future__ import annotations

import ast
import importlib.machinery
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from lightning_vision.errors import ConfigError

REQUIRED: Final = object()  # the parameter has no default
COMPUTED: Final = object()  # the default is an expression that only Python can evaluate

# Bases that give a class no constructor arguments; parsing torch's Module alone would cost a tenth of a second.
_PLAIN_BASES = {"object", "Module", "ABC", "Protocol", "Generic", "LightningModule", "LightningDataModule"}
_MAX_HOPS = 12
# Their classes have no constants of ours, and their base classes are long to parse.
_LIBRARIES = {"torch", "torchvision", "lightning", "timm", "transformers"}


@dataclass(frozen=True)
class Module:
    """A parsed source file: what it defines, and where the other names in it come from."""

    name: str
    file: Path
    defined: dict[str, ast.stmt]
    imported: dict[str, tuple[str, str | None]]  # local name -> (module, name in it, None for the module itself)
    starred: tuple[str, ...]


@dataclass(frozen=True)
class Parameter:
    """One argument of a constructor: its annotation, and the module whose names the annotation uses."""

    name: str
    annotation: ast.expr | None
    default: Any
    module: Module


@dataclass(frozen=True)
class Signature:
    """What a target takes and says about itself.

    Args:
        target: The dotted name that was asked for.
        file: The source file that defines it.
        summary: First line of its docstring, or an empty string.
        parameters: Arguments by name, in order, without ``self``.
        constants: Class constants that are plain literals, inherited ones included.
        takes_any: True if it has ``**kwargs``, so that no name can be called unknown.
    """

    target: str
    file: Path
    summary: str
    parameters: dict[str, Parameter]
    constants: dict[str, Any] = field(default_factory=dict)
    takes_any: bool = False

    @property
    def injected(self) -> tuple[str, ...]:
        """Arguments that code supplies and a config must not have."""
        return tuple(self.constants.get("injected", ()))


@cache
def package_folders(package: str) -> tuple[Path, ...]:
    """Return the folders of a package without importing it or its parents; empty if it is not installed."""
    head, _, rest = package.partition(".")
    loaded = sys.modules.get(head)
    spec = getattr(loaded, "__spec__", None) or importlib.machinery.PathFinder.find_spec(head)
    if spec is None:
        spec = next((s for f in sys.meta_path if (s := _ask(f, head)) is not None), None)  # editable installs
    folders = tuple(Path(p) for p in (spec.submodule_search_locations or ())) if spec else ()
    for part in rest.split(".") if rest else ():
        folders = tuple(f / part for f in folders if (f / part).is_dir())
    return folders


def _ask(finder: Any, name: str) -> importlib.machinery.ModuleSpec | None:
    find = getattr(finder, "find_spec", None)
    return find(name, None) if find else None


@cache
def source_file(module: str) -> Path | None:
    """Return the source file of a module without importing it or its parents, None if there is none."""
    parent, _, name = module.rpartition(".")
    if not parent:
        folders: tuple[Path, ...] = package_folders(name)
        candidates = [f / "__init__.py" for f in folders]
        spec = importlib.machinery.PathFinder.find_spec(name) if not folders else None
        if spec is not None and spec.origin and spec.origin.endswith(".py"):
            candidates.append(Path(spec.origin))
    else:
        folders = package_folders(parent)
        candidates = [c for f in folders for c in (f / name / "__init__.py", f / f"{name}.py")]
    return next((c for c in candidates if c.is_file()), None)


@cache
def parse(module: str) -> Module | None:
    """Parse a module; None if its source cannot be found."""
    file = source_file(module)
    if file is None:
        return None
    tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    defined: dict[str, ast.stmt] = {}
    imported: dict[str, tuple[str, str | None]] = {}
    starred: list[str] = []
    for node in _statements(tree.body):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            defined[node.name] = node
        elif isinstance(node, ast.Assign):
            defined.update({t.id: node for t in node.targets if isinstance(t, ast.Name)})
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            defined[node.target.id] = node
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                if alias.name == "*":
                    starred.append(origin)
                else:
                    imported[alias.asname or alias.name] = (origin, alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                head = alias.name if alias.asname else alias.name.split(".")[0]
                imported[alias.asname or head] = (head, None)
    return Module(module, file, defined, imported, tuple(starred))


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield top-level statements, those under ``if TYPE_CHECKING`` and ``try`` included."""
    for node in body:
        if isinstance(node, ast.If):
            yield from _statements(node.body + node.orelse)
        elif isinstance(node, ast.Try):
            yield from _statements(node.body + [s for h in node.handlers for s in h.body])
        else:
            yield node


def lookup(module: str, name: str, hops: int = 0) -> tuple[Module, ast.stmt] | None:
    """Find the statement that defines ``name``, through re-exports; None if it cannot be found."""
    parsed = parse(module)
    if parsed is None or hops > _MAX_HOPS:
        return None
    if name in parsed.defined:
        return parsed, parsed.defined[name]
    if name in parsed.imported:
        origin, original = parsed.imported[name]
        return lookup(origin, original, hops + 1) if original else None
    return next((found for m in parsed.starred if (found := lookup(m, name, hops + 1))), None)


def find(module: Module, expr: ast.expr) -> tuple[Module, ast.stmt] | None:
    """Find what a name or a dotted name means inside a module."""
    names = dotted(expr).split(".")
    if not names[0]:
        return None
    if len(names) == 1:
        return lookup(module.name, names[0])
    origin, original = module.imported.get(names[0], ("", None))
    if not origin:
        return None
    path = [origin, *([original] if original else []), *names[1:-1]]
    return lookup(".".join(path), names[-1])


def dotted(expr: ast.expr) -> str:
    """Return ``a.b.c`` for a name or attribute, an empty string for anything else."""
    if isinstance(expr, ast.Name):
        return expr.id
    if isinstance(expr, ast.Attribute):
        head = dotted(expr.value)
        return f"{head}.{expr.attr}" if head else ""
    return ""


@cache
def describe(target: str) -> Signature | None:
    """Return what a dotted target takes; None if its source cannot be found or does not define it."""
    parts = target.split(".")
    cut = next((i for i in range(len(parts) - 1, 0, -1) if source_file(".".join(parts[:i]))), 0)
    found = lookup(".".join(parts[:cut]), parts[cut]) if cut else None
    if found is None:
        return None
    module, node = found
    if isinstance(node, ast.FunctionDef) and len(parts) == cut + 1:
        parameters, takes_any = _arguments(node, module)
        return Signature(target, module.file, _summary(node), parameters, {}, takes_any)
    if not isinstance(node, ast.ClassDef):
        return None
    parameters, takes_any = _constructor(node, module)
    if len(parts) == cut + 2:  # a classmethod, such as Class.from_file
        method = next((s for s in node.body if isinstance(s, ast.FunctionDef) and s.name == parts[-1]), None)
        if method is None:
            return None
        parameters, takes_any = _arguments(method, module, skip=not _is_static(method))
    elif len(parts) > cut + 2:
        return None
    return Signature(target, module.file, _summary(node), parameters, _constants(node, module), takes_any)


def class_constants(target: str) -> dict[str, Any]:
    """Return the plain class constants of a target, such as ``output`` of a decoder.

    Raises:
        ConfigError: The source of the target cannot be found.
    """
    signature = describe(target)
    if signature is None:
        raise ConfigError("The source of a target cannot be found", given=target, expected="an installed Python class")
    return signature.constants


def classes_in(module: str) -> tuple[str, ...]:
    """Return the names of the public classes and functions that a module defines."""
    parsed = parse(module)
    kinds = (ast.ClassDef, ast.FunctionDef)
    return tuple(n for n, s in parsed.defined.items() if isinstance(s, kinds) and n[0] != "_") if parsed else ()


def _summary(node: ast.ClassDef | ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "").strip().split("\n")[0]


def _is_static(method: ast.FunctionDef) -> bool:
    return any(dotted(d) == "staticmethod" for d in method.decorator_list)


def _constructor(node: ast.ClassDef, module: Module, hops: int = 0) -> tuple[dict[str, Parameter], bool]:
    """Return the arguments of a class: of its ``__init__``, its dataclass fields, or its base class.

    A class that says ``rest_to_base = True`` hands its ``**kwargs`` to its base class: they are that one's arguments.
    """
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            own, takes_any = _arguments(statement, module, skip=True)
            if not takes_any or not _constants(node, module).get("rest_to_base"):
                return own, takes_any
            inherited, takes_any = _inherited(node, module, hops)
            return own | {name: p for name, p in inherited.items() if name not in own}, takes_any
    inherited, takes_any = _inherited(node, module, hops)
    if any(dotted(d.func if isinstance(d, ast.Call) else d).endswith("dataclass") for d in node.decorator_list):
        inherited.update(_fields(node, module))
    return inherited, takes_any


def _inherited(node: ast.ClassDef, module: Module, hops: int) -> tuple[dict[str, Parameter], bool]:
    """Return the arguments of the base classes."""
    inherited: dict[str, Parameter] = {}
    takes_any = False
    for base in reversed(node.bases):
        name = dotted(base.value if isinstance(base, ast.Subscript) else base)
        if name.rpartition(".")[2] in _PLAIN_BASES or hops > _MAX_HOPS:
            continue
        found = find(module, base)
        if found is None or not isinstance(found[1], ast.ClassDef):
            takes_any = True  # its arguments cannot be known, so none can be called wrong
            continue
        more, any_more = _constructor(found[1], found[0], hops + 1)
        inherited.update(more)
        takes_any = takes_any or any_more
    return inherited, takes_any


def _fields(node: ast.ClassDef, module: Module) -> dict[str, Parameter]:
    fields = {}
    for s in node.body:
        if not isinstance(s, ast.AnnAssign) or not isinstance(s.target, ast.Name) or _is_class_var(s):
            continue
        default = REQUIRED if s.value is None else literal(s.value, module)
        if isinstance(s.value, ast.Call) and dotted(s.value.func).endswith("field"):
            given = {k.arg: k.value for k in s.value.keywords}
            if isinstance(init := given.get("init"), ast.Constant) and init.value is False:
                continue
            factory = dotted(given["default_factory"]) if "default_factory" in given else ""
            made: dict[str, Any] = {"list": [], "dict": {}, "tuple": ()}
            default = literal(given["default"], module) if "default" in given else made.get(factory, COMPUTED)
        fields[s.target.id] = Parameter(s.target.id, s.annotation, default, module)
    return fields


def _is_class_var(node: ast.AnnAssign) -> bool:
    annotation = node.annotation.value if isinstance(node.annotation, ast.Subscript) else node.annotation
    return dotted(annotation).rpartition(".")[2] in ("ClassVar", "Final")


def _arguments(node: ast.FunctionDef, module: Module, skip: bool = False) -> tuple[dict[str, Parameter], bool]:
    positional = [*node.args.posonlyargs, *node.args.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(node.args.defaults)) + list(node.args.defaults)
    pairs = list(zip(positional, defaults, strict=True))[1 if skip else 0 :]
    pairs += zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    parameters = {
        arg.arg: Parameter(arg.arg, arg.annotation, REQUIRED if value is None else literal(value, module), module)
        for arg, value in pairs
    }
    return parameters, node.args.kwarg is not None


def literal(expr: ast.expr, module: Module) -> Any:
    """Evaluate a literal, or a name that stands for one; COMPUTED if it is neither."""
    try:
        return ast.literal_eval(expr)
    except (ValueError, TypeError):
        pass  # not a literal: perhaps the name of a constant
    found = find(module, expr)
    if found is not None and isinstance(found[1], ast.Assign | ast.AnnAssign) and found[1].value is not None:
        try:
            return ast.literal_eval(found[1].value)
        except (ValueError, TypeError):
            return COMPUTED
    return COMPUTED


def _constants(node: ast.ClassDef, module: Module, hops: int = 0) -> dict[str, Any]:
    constants: dict[str, Any] = {}
    if module.name.partition(".")[0] in _LIBRARIES:
        return constants
    for base in reversed(node.bases):
        if dotted(base).rpartition(".")[2] in _PLAIN_BASES or hops > _MAX_HOPS:
            continue
        found = find(module, base)
        if found is not None and isinstance(found[1], ast.ClassDef):
            constants.update(_constants(found[1], found[0], hops + 1))
    for s in node.body:
        names = [t.id for t in s.targets if isinstance(t, ast.Name)] if isinstance(s, ast.Assign) else []
        if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name) and _is_class_var(s):
            names = [s.target.id]
        if names and isinstance(s, ast.Assign | ast.AnnAssign) and s.value is not None:
            value = literal(s.value, module)
            if value is not COMPUTED:
                constants.update(dict.fromkeys(names, value))
    return constants
