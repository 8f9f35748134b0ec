"""Names of files that are written about images: the image's own, and never one name for two."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from pathlib import Path, PurePosixPath

import numpy as np

_FRAME = re.compile(r"(?P<stem>.+)\.\w+(?P<number>#\d+)")  # clip.mp4#000123


class Names:
    """Gives each image a name below a folder, without suffix.

    It is the image's own; sub-folders below ``root`` are mirrored. Of two images of one name (``a.jpg`` and ``a.png``)
    the later keeps its suffix (``a.png``), then gets a number. A frame ``clip.mp4#000123`` is ``clip#000123``. The same
    image always gets the same name. Costs 16 to 64 bytes an image: names that were given are known by their digests.

    Args:
        root: Folder that the sub-folders are taken below; images outside it, and all images where it is None, are named
            without sub-folders.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = None if root is None else Path(os.path.abspath(root))
        self._owners = _Owners()

    def of(self, path: str | Path) -> str:
        """The name of an image, with slashes."""
        source = os.path.abspath(path)
        inside = PurePosixPath(Path(path).name)
        if self.root is not None and Path(source).is_relative_to(self.root):
            inside = PurePosixPath(Path(source).relative_to(self.root).as_posix())
        frame = _FRAME.fullmatch(inside.name)
        parent, number = inside.parent, 1
        candidates = [inside.stem if frame is None else frame["stem"] + frame["number"], inside.name]
        owner = _digest(source)
        while True:
            for candidate in candidates:
                name = str(parent / candidate)
                # Some file systems take letters of either case, or composed and decomposed ones, for the same.
                key = unicodedata.normalize("NFC", name).casefold()
                if self._owners.claim(_digest(key), owner) == owner:
                    return name
            number += 1
            candidates = [f"{inside.name}_{number}"]


class _Owners:
    """Who took a key first: a hash table of two digests an entry, which a dict of Python's integers takes six times."""

    def __init__(self, capacity: int = 1024) -> None:
        self._entries = np.zeros((capacity, 2), np.uint64)
        self._count = 0

    def claim(self, key: int, owner: int) -> int:
        """Give the key to the owner unless somebody has it; returns who has it."""
        place = self._place(key)
        found = int(self._entries[place, 1])
        if found:
            return found
        self._entries[place] = key, owner
        self._count += 1
        if 2 * self._count > len(self._entries):
            taken = self._entries[self._entries[:, 1] != 0]
            self._entries = np.zeros((2 * len(self._entries), 2), np.uint64)
            for entry in taken:
                self._entries[self._place(int(entry[0]))] = entry
        return owner

    def _place(self, key: int) -> int:
        """Where the key stands, or the first free place for it."""
        place = key % len(self._entries)
        while self._entries[place, 1] and int(self._entries[place, 0]) != key:
            place = (place + 1) % len(self._entries)
        return place


def _digest(text: str) -> int:
    """64 bits of a text, never 0."""
    data = text.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") | 1
