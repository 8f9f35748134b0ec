"""A folder tree: one folder a class, or images beside masks, with or without a level of train, val and test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np

from lightning_vision.data.headers import is_image_name
from lightning_vision.data.index import PackedStrings, SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.sources.base import (
    DEFAULTS,
    NO_FURTHER,
    FurtherColumns,
    RawSamples,
    Source,
    TargetSettings,
    build_index,
    no_further,
    wrong_kind,
)
from lightning_vision.data.sources.fill import check_fill_value
from lightning_vision.data.sources.missing import is_saved_dataset, no_such_path
from lightning_vision.data.sources.problems import Problems
from lightning_vision.data.splits import split_id
from lightning_vision.errors import ConfigError, DataError, listed
from lightning_vision.overrides import override
from lightning_vision.types import SPLITS, Between, TargetKind

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages")
MASK_FOLDERS = ("masks", "mask", "labels", "annotations", "segmentationclass")
MASK_SUFFIXES = ("_mask", "_masks", "_label", "_gt")


class FolderSource(Source):
    """Images from a folder; the layout is found by looking.

    One folder a class: ``[train/]cat/1.jpg``; the folder's name is the label, images may lie deeper. Images beside
    masks: ``images/[train/]1.jpg`` and ``masks/[train/]1.png``, or ``train/images/1.jpg`` and ``train/masks/1.png``;
    matched by name without suffix, the mask's may end in ``_mask``. Hidden files and files that are no images are left
    out and counted.

    Args:
        path: The folder.
        masks: Name of the folder of masks. null = found among the usual names.
        val_fraction: Share of val where there is no split level; where it has no val, drawn from train.
        test_fraction: Share of test where there is no split level.
        class_names: Names in the order of their ids: a list, or a file with one a line. null = found in the data.
        num_classes: Number of classes, compared with the data. null = found in the data.
        unknown: Folders whose images are of none of the classes, in any split (open-set recognition).
        label_map: From labels as they are written to class names: a map, or a file (JSON, YAML, or lines
            ``label,name``). Several labels may have one name.
        ignore_index: Mask value left out of loss and metrics.
        mask_values: ``index``: the value is the class id; ``binary``: 0 and 255; ``threshold``: from 128 on is
            foreground; ``color``: the colour names the class; ``auto``: found in the files.
        colors: Colours of the classes, ``#rrggbb``, in the order of their ids. null = found in the training masks, with
            ``preprocessing.infer_image_num_classes``.
    """

    def __init__(
        self,
        path: str,
        masks: str | None = None,
        val_fraction: Annotated[float, Between(0, 1, high_open=True)] = 0.1,
        test_fraction: Annotated[float, Between(0, 1, high_open=True)] = 0.1,
        class_names: str | list[str] | None = None,
        num_classes: Annotated[int | None, Between(2, 65536)] = None,
        unknown: list[str] | None = None,
        label_map: str | dict[str, str] | None = None,
        ignore_index: Annotated[int | None, Between(0, 255)] = None,
        mask_values: Literal["auto", "index", "binary", "threshold", "color"] = "auto",
        colors: list[str] | None = None,
    ) -> None:
        self.path = path
        self.masks = masks
        self.settings = TargetSettings(
            class_names, num_classes, ignore_index, mask_values, val_fraction, test_fraction, colors, unknown, label_map
        )

    def target_kind(self, wanted: TargetKind) -> TargetKind | None:
        """Look at the folders, and at no file in them; see ``Source.target_kind``."""
        tree = _Tree(self._root())
        levels = [folder for folder, _ in tree.split_folders()] or [""]
        if any(self._pair(tree, folder) is not None for folder in levels):
            return wanted if wanted == "mask" else None
        classes = {name.lower() for folder in levels for name in tree.folders(folder)}
        loose = classes <= set(IMAGE_FOLDERS) or all(split_id(name) is not None for name in classes)
        return None if wanted == "mask" or loose else wanted

    def read(
        self,
        wanted: TargetKind | None,
        seed: int,
        strict: bool = True,
        preprocessing: Preprocessing = DEFAULTS,
        coverage: bool = True,
        further: FurtherColumns = NO_FURTHER,
    ) -> SampleIndex:
        """Read the folder; see ``Source.read``."""
        root = self._root()
        no_further(further, root)
        check_fill_value(preprocessing)
        problems = Problems(strict)
        strategy = preprocessing.missing_value_strategy
        if strategy != "error":
            problems.note(f"preprocessing.missing_value_strategy={strategy} is for tables: a folder has no empty cells")
        tree = _Tree(root)
        parts = tree.split_folders()
        levels: list[tuple[str, int | None]] = [*parts] or [("", None)]
        pairs = [(self._pair(tree, folder), part) for folder, part in levels]
        is_masks = any(pair is not None for pair, _ in pairs)
        samples = _Samples()
        if is_masks:
            for pair, part in pairs:
                if pair is not None:
                    samples.add_masks(tree, *pair, part, problems)
        elif wanted is None:
            for folder, part in levels:
                samples.add_images(tree, folder, part)
        else:
            for folder, part in levels:
                samples.add_classes(tree, folder, part)
        only_images = not is_masks and {name.lower() for name in samples.target} <= set(IMAGE_FOLDERS)
        if not samples.image or (only_images and wanted is not None):
            raise self._neither(tree, parts)
        found: TargetKind = "mask" if is_masks else "label"
        if wanted is not None and (wanted == "mask") != is_masks:
            what = "folders of images and of masks" if is_masks else "a folder for each class"
            raise wrong_kind(wanted, found, root, what)
        if tree.ignored:
            problems.note(f"{len(tree.ignored)} files that are no images are left out: {listed(tree.ignored, 5)}")
        known = all(part is not None for part in samples.split)
        masks = labels = None
        if wanted == "mask":
            masks = PackedStrings.from_strings(os.path.join(root, target) for target in samples.target)
        elif wanted is not None:
            labels = self.settings.labels(wanted, {"folder": PackedStrings.from_strings(samples.target)})
        return build_index(
            RawSamples(
                image=PackedStrings.from_strings(os.path.join(root, name) for name in samples.image),
                name=PackedStrings.from_strings(samples.image),
                mask=masks,
                labels=labels,
                split=np.array(samples.split, np.uint8) if known else None,
                row=None,
                origin=root,
                folder=root,
            ),
            self.settings,
            seed,
            problems,
            preprocessing,
            coverage,
        )

    def _root(self) -> str:
        if not self.path:
            raise ConfigError("data=folder needs the path of a folder", override="data.path=FOLDER")
        root = os.path.abspath(os.path.expanduser(self.path))
        if os.path.isdir(root):
            return root
        if not os.path.isfile(root):
            raise no_such_path("data.path", self.path, "a folder", os.path.isdir)
        raise ConfigError(
            f"{root} is a file",
            given=override("data.path", self.path),
            expected="a folder",
            override=f"data=table {override('data.path', self.path)}",
        )

    def _pair(self, tree: _Tree, folder: str) -> tuple[str, str] | None:
        """The folders of images and of masks inside ``folder``, or None if it does not have both."""
        names = tree.folders(folder)
        lower = {name.lower(): name for name in reversed(names)}
        images = next((lower[name] for name in IMAGE_FOLDERS if name in lower), None)
        if images is None:
            return None
        if self.masks is not None:
            if self.masks not in names:
                raise ConfigError(
                    f"{os.path.normpath(os.path.join(tree.root, folder))}: data.masks is no folder there",
                    given=self.masks,
                    expected=listed(names),
                    override=override("data.masks", next((n for n in names if n != images), "masks")),
                )
            return os.path.join(folder, images), os.path.join(folder, self.masks)
        usual = [lower[name] for name in MASK_FOLDERS if name in lower]
        if not usual:
            usual = [name for name in names if name.lower().startswith(("masks_", "mask_"))]
            if len(usual) > 1:
                raise ConfigError(
                    f"{os.path.normpath(os.path.join(tree.root, folder))}: more than one folder of masks",
                    given=listed(usual),
                    override=override("data.masks", usual[0]),
                )
        return (os.path.join(folder, images), os.path.join(folder, usual[0])) if usual else None

    @staticmethod
    def _neither(tree: _Tree, parts: list[tuple[str, int]]) -> DataError:
        inside = parts[0][0] if parts else ""
        found = [f"{name}/" for name in tree.folders(inside)] + sorted(tree.files(inside))
        folder = os.path.normpath(os.path.join(tree.root, inside))
        return DataError(
            f"{folder}: neither a folder for each class nor images beside masks",
            given=listed(found, 12) if found else "an empty folder",
            expected="CLASS/IMAGE.jpg, or images/NAME.jpg with masks/NAME.png; with or without train/, val/, test/",
            override=f"data=huggingface {override('data.path', tree.root)}"
            if is_saved_dataset(tree.root)
            else "data=table data.path=TABLE.csv",
        )


class _Tree:
    """Listings of a folder, without what is hidden."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.ignored: list[str] = []

    def folders(self, folder: str) -> list[str]:
        with os.scandir(os.path.join(self.root, folder)) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith((".", "__MACOSX")))

    def files(self, folder: str) -> list[str]:
        with os.scandir(os.path.join(self.root, folder)) as entries:
            return sorted(e.name for e in entries if not e.is_dir())

    def images(self, folder: str) -> Iterator[str]:
        """Paths of all images below ``folder``, relative to the root, sorted within each folder."""
        for directory, folders, files in os.walk(os.path.join(self.root, folder), followlinks=True):
            folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
            inside = os.path.relpath(directory, self.root)
            for name in sorted(files):
                path = name if inside == "." else os.path.join(inside, name)
                if is_image_name(name):
                    yield path
                else:
                    self.ignored.append(path)

    def split_folders(self, folder: str = "") -> list[tuple[str, int]]:
        """Folders named train, val or test that hold folders, with the split id; none if they look like classes."""
        found = [(name, part) for name in self.folders(folder) if (part := split_id(name)) is not None]
        if any(not self.folders(os.path.join(folder, name)) for name, _ in found):
            return []
        return [(os.path.join(folder, name), part) for name, part in found]


class _Samples:
    """Paths relative to the root, targets and splits as they are found."""

    def __init__(self) -> None:
        self.image: list[str] = []
        self.target: list[str] = []
        self.split: list[int | None] = []

    def add_classes(self, tree: _Tree, folder: str, part: int | None) -> None:
        for name in tree.folders(folder):
            for image in tree.images(os.path.join(folder, name)):
                self.image.append(image)
                self.target.append(name)
                self.split.append(part)
        # Files beside the class folders belong to none; the count tells of them.
        tree.ignored += [os.path.join(folder, name) for name in tree.files(folder)]

    def add_images(self, tree: _Tree, folder: str, part: int | None) -> None:
        """Add all images, wherever they lie; those in folders named train, val and test are of that split."""
        for image in tree.images(folder):
            above = os.path.relpath(image, folder or ".").split(os.sep)
            self.image.append(image)
            self.target.append("")
            self.split.append(part if part is not None or len(above) == 1 else split_id(above[0]))

    def add_masks(self, tree: _Tree, images: str, masks: str, part: int | None, problems: Problems) -> None:
        by_key: dict[str, str] = {}
        for mask in tree.images(masks):
            exact = _key(mask, masks)
            for key in {exact, _without_suffix(exact)}:
                other = by_key.setdefault(key, mask)
                if other != mask and _key(other, masks) == exact:
                    problems.error(DataError(f"{tree.root}: two masks of one image", given=f"{other}, {mask}"))
                elif key == exact:
                    by_key[key] = mask  # the same name goes before one with a suffix
        without: list[str] = []
        used: dict[str, str] = {}
        inner = {name: split_id(name) for name in tree.folders(images)} if part is None else {}
        for image in tree.images(images):
            key = _key(image, images)
            if key not in by_key:
                without.append(image)
                continue
            if by_key[key] in used:
                problems.error(
                    DataError(
                        f"{tree.root}: two images with the name of one mask, and one of them would get the other's",
                        given=f"{used[by_key[key]]}, {image}; {by_key[key]}",
                        expected="a mask for each image, under a name that no other image has",
                    )
                )
                continue
            used[by_key[key]] = image
            self.image.append(image)
            self.target.append(by_key[key])
            self.split.append(part if part is not None else inner.get(key.split(os.sep)[0]) if os.sep in key else None)
        if without:
            problems.error(
                DataError(
                    f"{os.path.join(tree.root, images)}: {len(without)} images have no mask in {masks}",
                    given=listed(without, 5),
                    expected=f"a mask with the same name, such as {os.path.join(masks, _key(without[0], images))}.png",
                    override="data.masks=FOLDER",
                )
            )
        unused = sorted(set(by_key.values()) - used.keys())
        if unused:
            problems.warn(f"{os.path.join(tree.root, masks)}: {len(unused)} masks have no image: {listed(unused, 5)}")
        splits = {name: SPLITS[s] for name, s in inner.items() if s is not None}
        other_folders = sorted(set(inner) - set(splits))
        if splits and other_folders:
            problems.warn(f"{os.path.join(tree.root, images)}: folders that are no split: {listed(other_folders)}")


def _key(path: str, folder: str) -> str:
    return os.path.splitext(os.path.relpath(path, folder))[0]


def _without_suffix(key: str) -> str:
    return next((key[: -len(end)] for end in MASK_SUFFIXES if key.lower().endswith(end)), key)
