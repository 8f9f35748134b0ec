"""Whether a mask can lie over its image, which may have another resolution."""

from __future__ import annotations


def same_aspect(mask: tuple[int, int], image: tuple[int, int]) -> bool:
    """True if a mask, scaled to its image, is off by one pixel at most, of the coarser of both.

    Args:
        mask: Height and width.
        image: Height and width.
    """
    (height, width), (image_height, image_width) = mask, image
    # In pixels of the image: how far one side of the mask is off once the other is brought to the image's.
    off_height = abs(height * image_width / width - image_height)
    off_width = abs(width * image_height / height - image_width)
    return off_height <= max(image_height / height, 1) or off_width <= max(image_width / width, 1)
