"""The settings of preprocessing: to what size and how images are brought, and when they are decoded."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from lightning_vision.data.placement import Resize
from lightning_vision.errors import ConfigError
from lightning_vision.types import Between, TargetSpec

Side = Annotated[int, Between(1)]


class Preprocessing:
    """How images become arrays of one shape, and when. Plain values; geometry and data module act on them.

    Args:
        height: Height in pixels. null = the root ``image_size``, else inferred.
        width: Width in pixels. Height and width are given together.
        num_channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA. null = inferred.
        missing_value_strategy: A row of a table without an image: ``error`` names it; ``drop_row`` leaves it out, and a
            row with an image but without a target as well (all others refuse that one);
            ``bfill`` and ``ffill`` repeat the next or the previous row of the same split, ``fill_with_mode`` the most
            frequent one, image and target together, so that no image gets another row's target; ``fill_with_const``
            takes ``fill_value`` as the image and keeps the row's own target. Filled rows are counted and reported.
        fill_value: For ``fill_with_const``: a grey value, 0 to 255, or the path of an image.
        resize_method: ``interpolate`` scales to height and width, whatever the aspect; ``crop_or_pad`` keeps the scale,
            cuts the centre or adds a border that repeats the edge; ``resize_crop`` keeps the aspect, scales until the
            result is ``crop_fraction`` of the tighter side, and cuts the centre, as ImageNet models are evaluated;
            ``resize_pad`` keeps the aspect, scales the whole image into height and width, and adds a border.
        crop_fraction: Share of the tighter side that ``resize_crop`` keeps.
        crop_rounding: Half a pixel of its offset: to the ``even`` number, as torchvision and timm have it, or
            ``down``, as transformers has it.
        resize_filter: ``bilinear`` or ``bicubic``, both with antialiasing; masks take the nearest pixel always.
        train_size: Pixels of both sides, or (height, width), that training images and their masks are brought to, at
            least those of the model's input. For an augmentation that crops: it cuts the input out of more pixels
            than it has. null = the model's own size.
        train_resize_method: How training images are brought to their size; null = as ``resize_method``. Where this or
            ``train_size`` is given, ``crop_fraction`` is of validation and test alone: in training ``resize_crop``
            keeps the whole tighter side.
        infer_image_dimensions: Take height and width from the data if none are given.
        infer_image_max_height: Upper bound of an inferred height, pixels.
        infer_image_max_width: Upper bound of an inferred width, pixels.
        infer_image_num_channels: Take the number of channels from the data if none is given; false means 3.
        infer_image_sample_size: Number of training images, spread evenly, whose headers decide the channels.
        requires_equal_dimensions: An inferred height and width become the smaller of both; given ones must be equal.
        infer_image_num_classes: Every colour (or grey value) that occurs in a training mask is a class. For masks whose
            colours are the classes; without it, masks hold class ids.
        num_classes: Number of classes of masks, compared with the data. 2 turns grey masks into background (below 128)
            and foreground.
        unseen_color: A colour in a mask that no training mask has, with ``infer_image_num_classes``: ``error``, or
            ``ignore`` its pixels.
        standardize_image: ``encoder``: with the statistics the encoder's weights were trained with; ``imagenet1k``:
            with ImageNet's; null: pixels stay in [0, 1].
        mode: ``lazy`` decodes every epoch, batch by batch; ``lazy_cached`` writes decoded pixels to disk in the first
            epoch and reads them back; ``eager`` decodes all before the first epoch.
        in_memory: Where ``eager`` keeps pixels: in memory, or, with false, on disk in the store of ``lazy_cached``.
        prefetch_size: Batches decoded ahead. null = 4, or 0 where pixels are read from memory.
        lazy_cache_dir: Folder of decoded pixels, of embeddings and of images that came from memory. null = the user's
            cache folder.
        cache_encoder_embeddings: Encode every image of train and val once, in the first epoch of a fit, and read its
            features from disk (half precision) ever after. For a frozen encoder without augmentation; null = if it is
            one and ``embedding_cache_limit`` is enough.
        embedding_cache_limit: GiB that the features of a run may take for null to cache them. Features of earlier
            runs that were unused for longest give way to them.
        decode_threads: Threads that decode batches. null = all cores that the process may use, shared among ranks.
        num_processes: Threads that go through all images before training: ``eager``, ``cache``, ``check``, and the
            scan of masks. They are threads, not processes: the decoders release Python's lock. null = all cores.
        exact_decode: Decode at full size before resizing. false lets the JPEG decoder halve large images first: faster,
            pixels differ slightly.
        on_bad_image: A sample whose file is missing or cannot be decoded: ``error`` stops with its path, ``skip``
            leaves it out, ``blank`` keeps its label with a black image (what further outputs predict becomes unknown).
            What was left out or blanked is counted and listed. Where more than half of the files are missing, that is
            an error all the same.
    """

    injected: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        height: Annotated[int | None, Between(1)] = None,
        width: Annotated[int | None, Between(1)] = None,
        num_channels: Annotated[int | None, Between(1, 4)] = None,
        missing_value_strategy: Literal[
            "error", "drop_row", "bfill", "ffill", "fill_with_mode", "fill_with_const"
        ] = "error",
        fill_value: int | str | None = None,
        resize_method: Literal["interpolate", "crop_or_pad", "resize_crop", "resize_pad"] = "interpolate",
        crop_fraction: Annotated[float, Between(0, 1, low_open=True)] = 0.875,
        crop_rounding: Literal["even", "down"] = "even",
        resize_filter: Literal["bilinear", "bicubic"] = "bilinear",
        train_size: Side | tuple[Side, Side] | None = None,
        train_resize_method: Literal["interpolate", "crop_or_pad", "resize_crop", "resize_pad"] | None = None,
        infer_image_dimensions: bool = True,
        infer_image_max_height: Annotated[int, Between(1)] = 256,
        infer_image_max_width: Annotated[int, Between(1)] = 256,
        infer_image_num_channels: bool = True,
        infer_image_sample_size: Annotated[int, Between(1)] = 100,
        requires_equal_dimensions: bool = False,
        infer_image_num_classes: bool = False,
        num_classes: Annotated[int | None, Between(2, 256)] = None,
        unseen_color: Literal["error", "ignore"] = "error",
        standardize_image: Literal["encoder", "imagenet1k"] | None = "encoder",
        mode: Literal["eager", "lazy", "lazy_cached"] = "lazy",
        in_memory: bool = True,
        prefetch_size: Annotated[int | None, Between(0)] = None,
        lazy_cache_dir: str | None = None,
        cache_encoder_embeddings: bool | None = None,
        embedding_cache_limit: Annotated[float, Between(0)] = 4.0,
        decode_threads: Annotated[int | None, Between(1)] = None,
        num_processes: Annotated[int | None, Between(1)] = None,
        exact_decode: bool = True,
        on_bad_image: Literal["error", "skip", "blank"] = "error",
    ) -> None:
        self.height = height
        self.width = width
        self.num_channels = num_channels
        self.missing_value_strategy = missing_value_strategy
        self.fill_value = fill_value
        self.resize = Resize(resize_method, crop_fraction, crop_rounding, resize_filter)
        self.train_size = train_size
        self.train_resize_method = train_resize_method
        self.infer_image_dimensions = infer_image_dimensions
        self.infer_image_max_height = infer_image_max_height
        self.infer_image_max_width = infer_image_max_width
        self.infer_image_num_channels = infer_image_num_channels
        self.infer_image_sample_size = infer_image_sample_size
        self.requires_equal_dimensions = requires_equal_dimensions
        self.infer_image_num_classes = infer_image_num_classes
        self.num_classes = num_classes
        self.unseen_color = unseen_color
        self.standardize_image = standardize_image
        self.mode = mode
        self.in_memory = in_memory
        self.prefetch_size = prefetch_size
        self.lazy_cache_dir = lazy_cache_dir
        self.cache_encoder_embeddings = cache_encoder_embeddings
        self.embedding_cache_limit = embedding_cache_limit
        self.decode_threads = decode_threads
        self.num_processes = num_processes
        self.exact_decode = exact_decode
        self.on_bad_image = on_bad_image

    def for_training(self) -> Preprocessing:
        """Return the settings with the ``resize`` of training images: these, if theirs is the same."""
        if self.train_size is None and self.train_resize_method is None:
            return self
        settings = copy(self)
        settings.resize = replace(self.resize, method=self.train_resize_method or self.resize.method, crop_fraction=1.0)
        return settings

    def require_unlabelled(self, target: TargetSpec | None, further: Sequence[TargetSpec] = ()) -> None:
        """Refuse black images in the place of bad ones where no value says that their targets do not count.

        A black image keeps the label of a main target. Sets of labels of further outputs become unknown.

        Args:
            target: The main target.
            further: Those of further outputs.

        Raises:
            ConfigError: ``on_bad_image`` is ``blank``, and masks, or labels of further outputs, have no ignored value.
        """
        if self.on_bad_image == "blank" and any(t.kind == "label" and t.ignore_index is None for t in further):
            raise ConfigError(
                "A black image has no label, and no label of the further outputs is ignored.",
                given="preprocessing.on_bad_image=blank",
                override="preprocessing.on_bad_image=skip",
            )
        if target is None or target.kind != "mask" or target.ignore_index is not None:
            return
        if self.on_bad_image == "blank":
            raise ConfigError(
                "A black image has no mask, so its pixels must not count, and no mask value is ignored.",
                given="preprocessing.on_bad_image=blank, data.ignore_index=null",
                override=["data.ignore_index=255", "preprocessing.on_bad_image=skip"],
            )
