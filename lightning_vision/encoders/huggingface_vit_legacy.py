"""The deprecated Vision Transformer of the documents; ``encoder=vit`` has taken its place."""

from __future__ import annotations

import logging
from typing import Annotated, Any, ClassVar

from lightning_vision.encoders.huggingface import HuggingFaceEncoder
from lightning_vision.encoders.huggingface_families import find_legacy_vit
from lightning_vision.types import OptionsFrom

log = logging.getLogger(__name__)


class LegacyViTEncoder(HuggingFaceEncoder):
    """A Vision Transformer (Dosovitskiy et al., 2021) with the weights that Google published.

    Deprecated: kept for configs that name it. The embedding is the class token behind the final norm.

    Args:
        model_variant: Size and patch: ``b_16``, ``b_32``, ``l_16``, ``l_32``, ``h_14``. The weights were fine-tuned on
            ImageNet, those of ``h_14`` are of ImageNet-21k and have no classifier.
        model_config: Arguments of ``ViTConfig`` that define the architecture when no weights are downloaded. None:
            those of the variant.
        num_channels: Channels of the images. None: 3. Otherwise the patch embedding is adapted.
        use_pretrained: Load the pretrained weights (or those of ``weights``); false: random weights.
        weights: Local file (``.safetensors``, ``.bin``) or folder, used in place of a download.
        model_cache_dir: Folder for downloads. None: the hub's own.
        saved_weights_in_checkpoint: None or true: a checkpoint holds the weights. False (frozen and pretrained only):
            it holds their digest and origin.
        trainable: False freezes the encoder.
        skip: Leave the encoder out: the image itself is the only map.
        adapter: None, ``lora`` or ``{type: lora, r: 8, alpha: 16, dropout: 0.0}``.
        keep_head: Keep the classifier of the pretrained weights.

    Raises:
        ConfigError: If the variant or the weights do not exist or do not fit.
    """

    ways_out: ClassVar[tuple[str, ...]] = ("encoder.weights=FILE", "encoder.use_pretrained=false")

    def __init__(
        self,
        model_variant: Annotated[
            str, OptionsFrom("lightning_vision.encoders.huggingface_families.legacy_vit_variants")
        ] = "b_16",
        model_config: dict[str, Any] | None = None,
        num_channels: int | None = None,
        use_pretrained: bool = True,
        weights: str | None = None,
        model_cache_dir: str | None = None,
        saved_weights_in_checkpoint: bool | None = None,
        trainable: bool = True,
        skip: bool = False,
        adapter: str | dict[str, Any] | None = None,
        keep_head: bool = False,
    ) -> None:
        log.warning("encoder=vit_legacy is deprecated and will be removed: use encoder=vit")
        super().__init__(
            "vit",
            find_legacy_vit(model_variant),
            model_config,
            num_channels,
            use_pretrained,
            weights,
            model_cache_dir,
            saved_weights_in_checkpoint,
            trainable,
            skip,
            adapter,
            keep_head=keep_head,
        )
