"""A config of Ludwig as it lies in a file: read strictly, so that nothing in it is lost."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

import yaml

from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.overrides import override

_ENDINGS = (".yaml", ".yml", ".json")


class _Strict(yaml.SafeLoader):
    """YAML as it is meant: no key twice, ``1e-3`` is a number, and a date is text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        if twice := [key for i, key in enumerate(keys) if key in keys[:i]]:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice[0]!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Strict.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":float"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# YAML 1.1 wants a point in every number that has an exponent.
_FLOAT = re.compile(r"[-+]?(\d[\d_]*\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$")
_Strict.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def read(path: str) -> dict[str, Any]:
    """Read a config.

    Raises:
        ConfigError: There is no such file, or it is not the YAML of one mapping.
    """
    file = os.path.expanduser(path)
    try:
        with open(file, encoding="utf-8-sig") as stream:
            content = yaml.load(stream, _Strict)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(
            "The Ludwig config is not valid YAML",
            given=path,
            expected=f"{where}{getattr(error, 'problem', None) or str(error).splitlines()[0]}",
        ) from error
    try:
        json.dumps(content, default=str, skipkeys=True)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            "The Ludwig config contains itself", given=path, expected="no alias within its own anchor"
        ) from error
    return mapping(content, path)


def mapping(content: Any, path: str) -> dict[str, Any]:
    """Return the content of a file if it is a mapping that says something.

    Raises:
        ConfigError: It is a list or a single value, or empty.
    """
    if isinstance(content, Mapping) and content:
        return {str(key): value for key, value in content.items()}
    found = "nothing" if content is None or content == {} else f"a {type(content).__name__}"
    if isinstance(content, list):
        found = "a list; one of features belongs below input_features: or output_features:"
    raise ConfigError(
        "A Ludwig config is a mapping of keys to values",
        given=f"{path}, which holds {found}",
        expected="input_features:, output_features:, preprocessing:, trainer:, or one of encoder:, decoder:, loss: ...",
    )


def _unreadable(path: str, error: Exception) -> ConfigError:
    folder = os.path.dirname(os.path.expanduser(path)) or "."
    if not isinstance(error, OSError):
        return ConfigError("The Ludwig config is not text in UTF-8", given=path, expected=str(error))
    if not isinstance(error, FileNotFoundError):
        return ConfigError("The Ludwig config cannot be read", given=path, expected=error.strerror)
    there = sorted(f for f in os.listdir(folder) if f.endswith(_ENDINGS)) if os.path.isdir(folder) else []
    near = nearest(os.path.basename(path), there)
    return ConfigError(
        "There is no such Ludwig config",
        given=f"ludwig={path}",
        expected=f"a YAML file, such as {listed(there, 10)}" if there else "a YAML file",
        override=override("ludwig", os.path.join(os.path.dirname(path), near)) if near else None,
    )
