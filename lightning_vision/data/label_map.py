"""From the labels as the data write them to the names of the classes: codes to words, or several classes to one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from lightning_vision.data.class_names import find_file
from lightning_vision.data.index import PackedStrings
from lightning_vision.errors import ConfigError, DataError, listed, nearest

LabelMap = Mapping[str, str]


def read_label_map(given: str | Mapping[str, str] | None, folder: str) -> dict[str, str] | None:
    """Return a map from labels to class names; None stays None.

    Args:
        given: The map, or the path of a file, looked up as it is and then in ``folder``: JSON or YAML with one mapping,
            or a line for each label, the label and the name with a comma or a tab between.
        folder: Where the data lie.

    Raises:
        ConfigError: There is no such file, or it holds no map.
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        found: object = given
    else:
        file = find_file(given, folder, "data.label_map")
        found = _mapping(file) if file.lower().endswith((".json", ".yaml", ".yml")) else _lines(file)
    if not isinstance(found, Mapping) or not found or any(isinstance(v, Mapping | list) for v in found.values()):
        raise ConfigError(
            "data.label_map holds no map from labels to names",
            given=given if isinstance(given, str) else dict(given),
            expected="{n01440764: tench, n01443537: goldfish}, or a file with a line n01440764,tench for each label",
            override="data.label_map=null",
        )
    return {str(label).strip(): str(name).strip() for label, name in found.items()}


def _mapping(file: str) -> object:
    import yaml

    with open(file, encoding="utf-8-sig") as text:
        try:
            return yaml.safe_load(text)  # JSON is YAML
        except yaml.YAMLError as error:
            raise ConfigError("data.label_map cannot be read", given=f"{file} ({error})") from error


def _lines(file: str) -> dict[str, str]:
    found: dict[str, str] = {}
    with open(file, encoding="utf-8-sig") as text:
        for number, line in enumerate(text, 1):
            if not line.strip():
                continue
            label, mark, name = line.strip().partition("\t" if "\t" in line else ",")
            if not mark or not name.strip() or label.strip() in found:
                why = "a label twice" if label.strip() in found else "no label and name"
                raise ConfigError(f"{file}: line {number} holds {why}", given=line.strip(), expected="LABEL,NAME")
            found[label.strip()] = name.strip()
    return found


def apply_label_map(
    cells: PackedStrings,
    label_map: LabelMap,
    where: Callable[[int], str],
    report: Callable[[DataError], None],
    others: Sequence[str] = (),
) -> PackedStrings:
    """Return the cells with names in the place of labels; names themselves stay as they are.

    Args:
        cells: A label each.
        label_map: From ``read_label_map``.
        where: Says in words where row i comes from.
        report: Called with an error for labels that the map does not know.
        others: Labels that are no class (``data.unknown``), and stay as they are.
    """
    known = {**{name: name for name in (*label_map.values(), *others)}, **label_map}
    missing = ((i, cell) for i, cell in enumerate(cells) if cell not in known)
    shown = list(islice(missing, 5))
    if shown:
        report(
            DataError(
                "labels that data.label_map does not know",
                given="; ".join(f"{cell!r} ({where(i)})" for i, cell in shown),
                expected=listed(label_map, 10),
                nearest=nearest(shown[0][1], label_map),
                override="data.label_map=null",
            )
        )
    return PackedStrings.from_strings(known.get(cell, cell) for cell in cells)
