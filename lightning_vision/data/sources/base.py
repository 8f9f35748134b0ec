"""What all sources share: from raw rows to a checked SampleIndex."""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from lightning_vision.data.class_names import read_class_names
from lightning_vision.data.index import FurtherTarget, PackedStrings, SampleIndex
from lightning_vision.data.mask_colors import hex_color
from lightning_vision.data.mask_memory import remembered_require_classes, remembered_scan
from lightning_vision.data.mask_settings import mask_settings
from lightning_vision.data.mask_values import mask_target
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.sources.labels import MISSING_WORDS, RawLabels, two_labels
from lightning_vision.data.sources.problems import Problems
from lightning_vision.data.splits import split_by_fraction, split_sets_by_fraction
from lightning_vision.errors import ConfigError, DataError, VisionError, listed
from lightning_vision.overrides import grammar
from lightning_vision.types import SPLITS, MaskValues, TargetKind, TargetSpec

Repeats = list[list[int]]
# Of each further output its name, and the columns (None = found), the kind and the class names (None = found) it has.
FurtherColumns = Mapping[str, tuple[str | list[str] | None, TargetKind, Sequence[str] | None]]
NO_FURTHER: FurtherColumns = MappingProxyType({})
DEFAULTS = Preprocessing()


class Source(ABC):
    """Where samples come from. Constructor arguments are the keys of the YAML file."""

    injected: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def read(
        self,
        wanted: TargetKind | None,
        seed: int,
        strict: bool = True,
        preprocessing: Preprocessing = DEFAULTS,
        coverage: bool = True,
        further: FurtherColumns = NO_FURTHER,
    ) -> SampleIndex:
        """Read the index of all samples.

        Args:
            wanted: The target that the decoder needs; None = images alone.
            seed: Of the random split, where the data bring none.
            strict: Raise the first error. False collects errors in ``index.problems`` and leaves unusable rows out.
            preprocessing: What becomes of missing images, and what the values of masks mean.
            coverage: Labels must be of two classes at least, and train must have all of them. False for tasks that
                train on some of the classes alone (anomaly detection, open sets).
            further: What further outputs predict beside ``wanted``: labels or sets of labels.

        Raises:
            ConfigError: A setting does not go with the data.
            DataError: The data are wrong.
        """

    def target_kind(self, wanted: TargetKind) -> TargetKind | None:
        """Tell, from the first rows alone, what the data hold where a target is wanted.

        Args:
            wanted: What the decoder takes where nothing else is said.

        Returns:
            ``labels`` where a label is wanted and the data hold sets of labels; None if nothing in the data can be the
            target; else ``wanted``.

        Raises:
            ConfigError: The data are not there, or a setting names what is not in them.
        """
        return wanted


@dataclass
class RawSamples:
    """Rows as a source finds them, before labels are numbered and files looked for.

    Args:
        image: Absolute path of every image.
        name: What tells a row apart wherever the data lie (a relative path); orders the random split.
        mask: Absolute path of every mask, where masks are wanted.
        labels: The labels, where labels are wanted.
        split: uint8 ``(N,)``, or None for a random split.
        row: Row number in the file, for messages, or None.
        origin: The file or folder.
        folder: Where a relative ``class_names`` file is looked for.
        further: Absolute paths of the second image of every sample, and so on, where there are several.
        group: What each row belongs to, which a random split keeps together, or None.
        place: Says where a row number is, for messages.
        by_name: Rows are the same if their names are, not if their first images are.
        copies: Finds the rows that take the place of rows without an image: called with the split of all rows, it
            returns int64 ``(M,)``, the rows of the index in its final order.
        further_labels: The labels of further outputs, by their names.
    """

    image: PackedStrings
    name: PackedStrings
    mask: PackedStrings | None
    labels: RawLabels | None
    split: npt.NDArray[np.uint8] | None
    row: npt.NDArray[np.int64] | None
    origin: str
    folder: str
    further: tuple[PackedStrings, ...] = ()
    group: PackedStrings | None = None
    place: Callable[[int], str] = "row {}".format
    by_name: bool = False
    copies: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.int64]] | None = None
    further_labels: Mapping[str, RawLabels] = field(default_factory=dict)

    def where(self, i: int) -> str:
        """Say where row i comes from."""
        return self.name[i] if self.row is None else self.place(int(self.row[i]))


@dataclass
class TargetSettings:
    """The settings that every source has for its targets and its random split."""

    class_names: str | Sequence[str] | None
    num_classes: int | None
    ignore_index: int | None
    mask_values: Literal["auto"] | MaskValues
    val_fraction: float
    test_fraction: float
    colors: Sequence[str] | None = None
    unknown: Sequence[str] | None = None
    label_map: str | Mapping[str, str] | None = None

    def labels(
        self,
        kind: TargetKind,
        columns: Mapping[str, PackedStrings],
        flags: bool = False,
        separator: str | None = None,
        class_names: Sequence[str] | None = None,
    ) -> RawLabels:
        """The labels of the main target; ``class_names`` are what the data say, where the settings say nothing."""
        names = self.class_names
        if names is None and class_names is not None and self.label_map is None:
            names = [name for name in class_names if name not in (self.unknown or ())]
        return RawLabels(kind, columns, flags, separator, names, self.num_classes, self.unknown, self.label_map)


def build_index(
    raw: RawSamples,
    settings: TargetSettings,
    seed: int,
    problems: Problems,
    preprocessing: Preprocessing = DEFAULTS,
    coverage: bool = True,
) -> SampleIndex:
    """Check the files, number the labels, split, and find out what masks mean."""
    if raw.labels is not None:
        _no_mask_settings(preprocessing, problems)
    if raw.mask is not None and settings.unknown:
        problems.error(
            ConfigError("data.unknown names labels, and the data hold masks here", override="data.unknown=null")
        )
    if not len(raw.image):
        problems.error(DataError(f"{raw.origin}: no samples"))
    for column in (raw.image, *raw.further):
        _check_files(raw, "image", column, problems, preprocessing)
    names = None if raw.mask is None else read_class_names(settings.class_names, raw.folder)
    labels: dict[str, RawLabels] = {} if raw.labels is None else {"": raw.labels}
    labels |= raw.further_labels
    told = {name: problems.about(name) if name else problems for name in labels}
    bad = np.zeros(len(raw.image), np.bool_)
    found: dict[str, FurtherTarget] = {}
    for name, column_of_labels in labels.items():
        numbered, wrong = column_of_labels.numbered(raw.where, raw.folder, told[name])
        bad |= wrong
        if numbered is not None:
            found[name] = numbered
    split = _split(raw, next(iter(found.values()), None), settings, seed, problems)
    repeats = list(_repeats(raw.name if raw.by_name else raw.image))
    main = found.get("")
    target = None if main is None else main.target
    if raw.mask is not None:
        _check_files(raw, "mask", raw.mask, problems, preprocessing)
        target = _mask_target(raw.mask, split, names, settings, problems, preprocessing)
    for name, numbered in found.items():
        labels[name].check(numbered, split, raw.where, raw.origin, told[name], coverage)
        two_labels(raw.image, repeats, numbered, raw.where, told[name])
    _across_splits(raw, repeats, split, problems)
    _groups_across_splits(raw, split, problems)
    _repeated_rows(raw, repeats, list(found.values()), split, problems)
    index = SampleIndex(
        image=raw.image,
        split=split,
        label=None if main is None else main.label,
        mask=raw.mask,
        target=target,
        origin=raw.origin,
        is_split=raw.split is not None,
        further=raw.further,
        labels=None if main is None else main.labels,
        further_targets={name: numbered for name, numbered in found.items() if name},
    )
    if raw.copies is not None or bad.any():
        rows = np.arange(len(index)) if raw.copies is None else raw.copies(split)
        index = index.take(rows[~bad[rows]])
    index.problems = tuple(problems.found)
    return index


def _split(
    raw: RawSamples, target: FurtherTarget | None, settings: TargetSettings, seed: int, problems: Problems
) -> npt.NDArray[np.uint8]:
    groups = None if raw.group is None else list(raw.group)
    if raw.split is None:
        fractions = settings.val_fraction, settings.test_fraction
        split = _drawn(list(raw.name), target, fractions, seed, groups)
        if settings.val_fraction or settings.test_fraction:
            train, val, test = np.bincount(split, minlength=3).tolist()
            problems.note(f"the data are not split, so the seed {seed} drew {train} train, {val} val, {test} test")
            if groups is not None and settings.val_fraction and not val:
                _no_val(groups, problems)
        return split
    counts = np.bincount(raw.split, minlength=3)
    if counts[0] >= 2 and not counts[1] and settings.val_fraction > 0:
        # Every fit needs a val split; a held-out test split is the user's own decision.
        train = np.flatnonzero(raw.split == 0)
        names = [raw.name[int(i)] for i in train]
        groups = None if groups is None else [groups[int(i)] for i in train]
        of_train = None if target is None else target.take(train)
        drawn = _drawn(names, of_train, (settings.val_fraction, 0.0), seed, groups)
        if not drawn.any() and groups is None:
            drawn[-1] = 1
        if not drawn.any():
            _no_val(groups or (), problems)
            return raw.split
        split = raw.split.copy()
        split[train] = drawn
        problems.note(f"no val split: {int((drawn == 1).sum())} of {len(train)} training samples became val")
        return split
    return raw.split


def _drawn(
    names: Sequence[str],
    target: FurtherTarget | None,
    fractions: tuple[float, float],
    seed: int,
    groups: Sequence[str] | None,
) -> npt.NDArray[np.uint8]:
    if target is not None and target.labels is not None:
        return split_sets_by_fraction(names, target.labels, *fractions, seed, groups)
    return split_by_fraction(names, None if target is None else target.label, *fractions, seed, groups)


def _no_val(groups: Sequence[str], problems: Problems) -> None:
    count = len(set(groups))
    problems.warn(
        f"no val split, and none could be drawn: the {len(groups)} samples belong to {count} "
        f"group{'s' if count > 1 else ''} (data.group), and groups stay whole"
    )


def _no_mask_settings(preprocessing: Preprocessing, problems: Problems) -> None:
    """Refuse settings of masks where the targets are labels."""
    count = preprocessing.num_classes
    for name, value, unset, instead in (
        ("infer_image_num_classes", preprocessing.infer_image_num_classes, False, "decoder=unet, for data with masks"),
        ("num_classes", count, None, f"data.num_classes={count} preprocessing.num_classes=null"),
        ("unseen_color", preprocessing.unseen_color, "error", "decoder=unet"),
    ):
        if value != unset:
            given = f"preprocessing.{name}={grammar(value)}"
            problems.error(
                ConfigError(
                    f"preprocessing.{name} is about masks, and the decoder predicts a label for each image",
                    given=given,
                    override=[f"preprocessing.{name}={grammar(unset)}", instead],
                )
            )


def _mask_target(
    mask: PackedStrings,
    split: npt.NDArray[np.uint8],
    names: tuple[str, ...] | None,
    settings: TargetSettings,
    problems: Problems,
    preprocessing: Preprocessing,
) -> TargetSpec | None:
    training = split == 0 if (split == 0).any() else np.ones(len(split), np.bool_)
    threads = preprocessing.num_processes
    try:
        said = mask_settings(names, settings, preprocessing)
        refuse = preprocessing.on_bad_image == "error"
        by_color = said.mask_values == "color"
        known = cache_folder("masks")
        rows, strict = np.flatnonzero(training), refuse and problems.strict
        scan = remembered_scan(known, mask, rows, by_color, threads, strict)
        for _, message in scan.errors:
            if message.endswith(": no such file"):
                continue  # these were counted together
            if refuse:
                problems.error(DataError(message))
            else:
                problems.warn(message)
        if not scan.read:
            if scan.errors and not refuse:
                problems.error(DataError("no mask can be read", given=scan.errors[0][1]))
            return None
        target = mask_target(scan, mask, said)
        if problems.strict and refuse:
            # Found now, and not after the training; what is not strict reads all masks by itself.
            remembered_require_classes(known, mask, np.flatnonzero(~training), target, threads)
    except VisionError as error:
        problems.error(error)
        return None
    if by_color and said.colors is None:
        named = zip(map(hex_color, target.palette or ()), target.class_names, strict=False)
        shown = listed(color if color == name else f"{color} {name}" for color, name in named)
        problems.note(f"{target.num_classes} colours of the training masks are the classes, in this order: {shown}")
    elif target.mask_values == "index" and scan.other_palette is not None:
        problems.warn(
            f"{mask[scan.other_palette]}: its palette is another than in the masks before; the index of a pixel is its "
            "class, whatever its colour (preprocessing.infer_image_num_classes=true goes by the colours)"
        )
    return target


def missing_files(paths: PackedStrings) -> list[int]:
    """Rows whose file does not exist; every directory is listed once instead of asking for each file."""
    listing: dict[str, frozenset[str]] = {}
    missing = []
    for i, path in enumerate(paths):
        folder, name = os.path.split(path)
        if folder not in listing:
            try:
                with os.scandir(folder or ".") as entries:
                    listing[folder] = frozenset(entry.name for entry in entries)
            except (OSError, ValueError):
                # No such folder, one that may be entered but not listed, or no name at all (a NUL byte): see below.
                listing[folder] = frozenset()
        # A file system may know a name in another spelling (case, unicode form).
        if name not in listing[folder] and not os.path.exists(path):
            missing.append(i)
    return missing


def _check_files(
    raw: RawSamples, column: str, paths: PackedStrings, problems: Problems, preprocessing: Preprocessing
) -> None:
    missing = missing_files(paths)
    if not missing:
        return
    message = f"{raw.origin}: {len(missing)} of {len(paths)} {column} files do not exist"
    shown = "; ".join(f"{raw.where(i)}: {_short(paths[i])}" for i in missing[:5])
    more = f" … and {len(missing) - 5} more" if len(missing) > 5 else ""
    if any(os.path.basename(paths[i]).lower() in MISSING_WORDS for i in missing):
        more += " (a missing image is an empty cell; a word is the name of a file)"
    on_bad_image = preprocessing.on_bad_image
    # More than half are no bad images but a wrong folder, or a disk that is not there.
    few = 2 * len(missing) <= len(paths)
    if few and on_bad_image != "error":
        done = "left out" if on_bad_image == "skip" else "blanked"
        problems.warn(f"{message}; their samples are {done} (preprocessing.on_bad_image={on_bad_image}): {shown}{more}")
        return
    override = [f"data.root=FOLDER  (relative {column} paths start there)"] if raw.row is not None else []
    if few:
        override.append("preprocessing.on_bad_image=skip  (leaves out what is missing)")
    problems.error(DataError(message, given=shown + more, override=override))


def _short(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text)} characters)"


def _repeats(paths: PackedStrings) -> Iterator[list[int]]:
    """Groups of rows with the same path."""
    first: dict[int, int | list[int]] = {}
    for i, path in enumerate(paths):
        key = hash(path)
        other = first.setdefault(key, i)
        if isinstance(other, list):
            other.append(i)
        elif other != i:
            first[key] = [other, i]
    for rows in first.values():
        if isinstance(rows, list):
            by_path: dict[str, list[int]] = {}
            for i in rows:
                by_path.setdefault(paths[i], []).append(i)
            yield from (group for group in by_path.values() if len(group) > 1)


def _repeated_rows(
    raw: RawSamples,
    repeats: Repeats,
    targets: Sequence[FurtherTarget],
    split: npt.NDArray[np.uint8],
    problems: Problems,
) -> None:
    found = [r for r in repeats if len({(int(split[i]), *(target.key(i) for target in targets)) for i in r}) == 1]
    if found:
        shown = "; ".join(f"{raw.image[rows[0]]} ({listed(map(raw.where, rows), 5)})" for rows in found[:5])
        count = sum(len(rows) - 1 for rows in found)
        problems.note(f"{count} rows repeat the image of another row of their split, and count as often: {shown}")


def _groups_across_splits(raw: RawSamples, split: npt.NDArray[np.uint8], problems: Problems) -> None:
    if raw.group is None:
        return
    parts: dict[str, int] = {}
    for group, part in zip(raw.group, split.tolist(), strict=True):
        parts[group] = parts.get(group, 0) | 1 << part
    found = [
        f"{group} ({', '.join(name for s, name in enumerate(SPLITS) if bits >> s & 1)})"
        for group, bits in parts.items()
        if bits & (bits - 1)
    ]
    if found:
        problems.warn(f"{len(found)} of {len(parts)} groups are in more than one split: {listed(found, 10)}")


def _across_splits(raw: RawSamples, repeats: Repeats, split: npt.NDArray[np.uint8], problems: Problems) -> None:
    found = [rows for rows in repeats if len({int(split[i]) for i in rows}) > 1]
    if found:
        shown = "; ".join(f"{raw.image[rows[0]]} ({listed(map(raw.where, rows), 5)})" for rows in found[:5])
        problems.warn(f"{len(found)} images are in more than one split: {shown}")


class WrongKind(ConfigError):
    """The decoder wants another kind of target than the data hold.

    Attributes:
        found: What the data hold.
        decoder: One that takes it.
    """

    found: TargetKind
    decoder: str


def wrong_kind(
    wanted: TargetKind, found: TargetKind, origin: str, what: str, override: Sequence[str] = ()
) -> WrongKind:
    """The error for a decoder that wants the other kind of target; ``override``: settings that would give it that."""
    decoder, other = ("unet", "classifier") if wanted == "mask" else ("classifier", "unet")
    needs = {"label": "one label an image", "labels": "labels of an image", "mask": "a mask an image"}
    plural = {"label": "labels", "labels": "labels", "mask": "masks"}
    error = WrongKind(
        f"{origin}: the decoder needs {needs[wanted]}, the data hold {needs[found]}",
        given=f"{what}, and a decoder such as decoder={decoder}",
        expected=f"a decoder for {plural[found]}, or data with {plural[wanted]}",
        override=[f"decoder={other}", *override],
    )
    error.found, error.decoder = found, other
    return error


def no_further(further: FurtherColumns, origin: str) -> None:
    """Refuse further outputs where rows have one target.

    Raises:
        ConfigError: There are some.
    """
    if further:
        raise ConfigError(
            f"{origin}: there is one target for each image, and several outputs need several",
            given=f"the outputs {listed(further)} beside the main one",
            expected="a table or a Hugging Face dataset with a column for each output",
            override=["data=table data.path=TABLE.csv", "data=huggingface data.path=FOLDER_OR_NAME"],
        )


def cache_folder(name: str) -> str:
    """Return ``<cache>/<name>``, made if needed: below ``LIGHTNING_VISION_CACHE``, else the user's cache folder.

    Where that cannot be written, the user's folder below the system's temporary folder is taken, with a printed note.
    """
    base = os.environ.get("LIGHTNING_VISION_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache"), "lightning_vision"
    )
    wanted = os.path.join(os.path.expanduser(base), name)
    try:
        os.makedirs(wanted, exist_ok=True)
        if os.access(wanted, os.W_OK | os.X_OK):
            return wanted
        why = "no permission to write"
    except OSError as error:
        why = error.strerror or str(error)
    user = os.getuid() if hasattr(os, "getuid") else "user"
    fallback = os.path.join(tempfile.gettempdir(), f"lightning_vision-{user}", name)
    os.makedirs(fallback, mode=0o700, exist_ok=True)
    print(f"note: {wanted}: {why}; using {fallback} (LIGHTNING_VISION_CACHE chooses another folder)")
    return fallback
