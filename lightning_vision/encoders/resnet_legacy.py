"""ResNet V2, an encoder of older versions of the documents."""

from __future__ import annotations

import logging
from typing import Annotated, Any, Literal

from lightning_vision.encoders.timm import TimmEncoder
from lightning_vision.errors import ConfigError
from lightning_vision.types import Between

log = logging.getLogger(__name__)

# Of the depth 152 timm has weights for wider networks only.
PRETRAINED = ("18", "34", "50", "101")


class ResNetLegacy(TimmEncoder):
    """ResNet V2, whose blocks normalise and activate before they convolve; deprecated in favour of ``resnet``.

    He et al., 2016, "Identity Mappings in Deep Residual Networks", https://arxiv.org/abs/1603.05027, as timm's
    ``resnetv2_*``: maps of strides 2 to 32, the last behind the final norm and activation. Pretrained weights exist for
    the depths 18, 34, 50 and 101.

    Args:
        model_variant: Depth.
        model_kwargs: Further arguments of ``timm.create_model``, such as ``{drop_path_rate: 0.1}``.
        num_channels: Channels of the images. None: 3. Otherwise the first convolution is adapted: one channel gets the
            sum of its RGB kernels, more channels get them repeated and scaled by 3 / num_channels.
        use_pretrained: Load the pretrained weights (or those of ``weights``); false: random weights.
        weights: Local file (``.safetensors``, ``.pth``) or folder in timm's layout, used in place of a download.
        model_cache_dir: Folder for downloads. None: the hub's own.
        saved_weights_in_checkpoint: None or true: a checkpoint holds the weights. False (frozen and pretrained only):
            it holds their digest and origin.
        trainable: False freezes the encoder.
        skip: Leave the encoder out: the image itself is the only map.
        adapter: None, ``lora`` or ``{type: lora, r: 8, alpha: 16, dropout: 0.0}``.
        drop_path: Stochastic depth: share of the images that leave the last block out in training; it rises from 0 at
            the first. None: what the weights' own config says.
        keep_head: Keep the classifier, for ``classify``.

    Raises:
        ConfigError: If there are no weights of this depth, or if they do not fit.
    """

    def __init__(
        self,
        model_variant: Literal["18", "34", "50", "101", "152"] = "50",
        model_kwargs: dict[str, Any] | None = None,
        num_channels: int | None = None,
        use_pretrained: bool = True,
        weights: str | None = None,
        model_cache_dir: str | None = None,
        saved_weights_in_checkpoint: bool | None = None,
        trainable: bool = True,
        skip: bool = False,
        adapter: str | dict[str, Any] | None = None,
        drop_path: Annotated[float, Between(0, 1, high_open=True)] | None = None,
        keep_head: bool = False,
    ) -> None:
        log.warning("encoder=resnet_legacy is deprecated and will be removed: use encoder=resnet")
        if use_pretrained and not skip and weights is None and str(model_variant) not in PRETRAINED:
            raise ConfigError(
                "There are no pretrained weights of this depth.",
                given=f"encoder.model_variant={model_variant} and encoder.use_pretrained=true",
                expected=f"{', '.join(PRETRAINED)}, weights of your own, or random ones",
                override=[
                    "encoder.model_variant=101",
                    "encoder.weights=FILE",
                    "encoder.use_pretrained=false",
                    f"encoder=resnet encoder.model_variant={model_variant}",
                ],
            )
        super().__init__(
            None,
            f"resnetv2_{model_variant}",
            model_kwargs,
            num_channels,
            use_pretrained,
            weights,
            model_cache_dir,
            saved_weights_in_checkpoint,
            trainable,
            skip,
            adapter,
            drop_path,
            keep_head,
        )

    def rebuild_kwargs(self) -> dict[str, Any]:
        """Return the overrides that build this architecture without weights."""
        return {k: v for k, v in super().rebuild_kwargs().items() if k != "model_name"}
