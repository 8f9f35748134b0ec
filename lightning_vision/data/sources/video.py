"""Frames of a video file, one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_vision.errors import DataError
from lightning_vision.extras import require

SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv"),
    *(".flv", ".ogv", ".3gp", ".mts", ".m2ts"),
)


def is_video(path: object) -> bool:
    """Whether a path names a video, by its suffix."""
    return isinstance(path, str | os.PathLike) and os.fspath(path).lower().endswith(SUFFIXES)


class Video:
    """A video file, whose frames are decoded in their order: by one thread, or those that its codec brings along.

    Args:
        path: The file; all that FFmpeg reads.
        step: Every so manieth frame is taken, from the first on.

    Raises:
        ConfigError: The package av is not installed.
        DataError: The file is missing, or no video.
    """

    def __init__(self, path: str | os.PathLike[str], step: int = 1) -> None:
        self.path = os.path.abspath(os.path.expanduser(os.fspath(path)))
        self.step = step
        require("video", "av", needs="Videos need", given=self.path)
        with self._open() as container:
            frames = container.streams.video[0].frames
        # As its header says; None where it does not.
        self.count: int | None = -(-frames // step) if frames else None

    def name(self, position: int) -> str:
        """What the frame at this position among those that are taken is called: ``clip.mp4#000123``, from 0."""
        return f"{self.path}#{position * self.step:06d}"

    def frames(self, start: int = 0) -> Iterator[npt.NDArray[np.uint8]]:
        """Decode the frames that are taken, from position ``start`` on, turned as the camera was held.

        Yields:
            uint8 ``(H, W, 3)``.

        Raises:
            DataError: The film cannot be decoded from some frame on; those before it were yielded.
        """
        from av import FFmpegError

        with self._open() as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            number = -1
            try:
                for number, frame in enumerate(container.decode(stream)):
                    if number % self.step == 0 and number >= start * self.step:
                        pixels = frame.to_ndarray(format="rgb24")
                        yield np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))
            except FFmpegError as error:
                raise DataError(f"{self.path} cannot be decoded behind frame {number}", given=error) from error
            expected = _length(container, stream)
            if number + 1 < 0.95 * expected - 1:
                raise DataError(f"{self.path} ends behind frame {number}", expected=f"about {expected:.0f} frames")

    def _open(self) -> Any:
        import av

        try:
            container = av.open(self.path)
        except (av.FFmpegError, OSError) as error:
            raise DataError(f"{self.path} is no video that can be read", given=error) from error
        if not container.streams.video:
            container.close()
            raise DataError(f"{self.path} has no pictures", given="a file with sound alone")
        return container


def _length(container: Any, stream: Any) -> float:
    """Frames that a film says it has, 0 where it does not; sound that goes on behind the pictures does not count."""
    if stream.frames:
        return float(stream.frames)
    if stream.average_rate and stream.duration:
        return float(stream.duration * stream.time_base * stream.average_rate)
    if stream.average_rate and container.duration and len(container.streams) == 1:
        return float(container.duration / 1_000_000 * stream.average_rate)
    return 0.0
