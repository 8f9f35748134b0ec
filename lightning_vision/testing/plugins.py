"""The checks that every part must pass, run over a package of parts.

The test of a plugin is one call, or one test a part::

    @pytest.mark.parametrize(("group", "option"), options_in("example_plugin"))
    def test_a_part(group: str, option: str) -> None:
        check_option(group, option)
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from lightning_vision.config import instantiate
from lightning_vision.decoders.base import Decoder
from lightning_vision.encoders.base import Encoder
from lightning_vision.errors import ConfigError, listed
from lightning_vision.losses.base import Loss
from lightning_vision.options import load_option
from lightning_vision.searchpath import options_of, plugins
from lightning_vision.signatures import class_constants
from lightning_vision.testing import conformance
from lightning_vision.testing.options import check_file
from lightning_vision.types import FeatureInfo

CLASSES = ("a", "b", "c", "d")
# Maps as a convolutional network gives them, and as a ViT does.
INFOS = (FeatureInfo((4, 8, 16), (2, 4, 8), 16), FeatureInfo((8, 8, 8), (8, 8, 8), 8))


def check_plugin(package: str, settings: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Check all options that an installed plugin brings.

    Args:
        package: Its name, as in its entry point.
        settings: Of options by name, such as ``{"my_vit": {"use_pretrained": False}}``: what makes a part small, and
            keeps it off the network.

    Raises:
        AssertionError: A part breaks its contract; the message begins with its option.
        ConfigError: There is no such plugin, or a part cannot be built.
    """
    for group, option in options_in(package):
        try:
            check_option(group, option, (settings or {}).get(option))
        except AssertionError as error:
            raise AssertionError(f"{group}={option}: {error}") from error


def options_in(package: str) -> list[tuple[str, str]]:
    """The options of an installed plugin, with their groups, for ``pytest.mark.parametrize``.

    Raises:
        ConfigError: There is no such plugin.
    """
    if package not in plugins():
        raise ConfigError(
            "There is no such plugin.",
            given=package,
            expected=f"an installed one: {listed(plugins()) or 'there is none'}",
            override="pip install -e FOLDER",
        )
    return [(file.parent.name, file.stem) for file in sorted(plugins()[package].glob("*/*.yaml"))]


def check_option(group: str, option: str, settings: Mapping[str, Any] | None = None) -> None:
    """Check the file of an option, and its part: an encoder, a decoder or a loss does what its contract says.

    Args:
        group: The config group.
        option: The option's name.
        settings: Settings over those of the file.
    """
    check_file(options_of(group)[option])
    if group not in ("encoder", "decoder", "loss"):
        return
    torch.manual_seed(0)
    node = {**load_option(group, option), **(settings or {})}
    if group == "encoder":
        encoder = instantiate(node, Encoder)
        conformance.check_encoder(encoder, partial(_rebuilt, node))
    elif group == "decoder":
        # A decoder that needs several scales gets those of a ViT through a neck.
        one_scale = class_constants(node["_target_"])["one_scale_neck"] is None
        for info in INFOS if one_scale else INFOS[:1]:
            conformance.check_decoder(instantiate(node, Decoder, info=info, num_classes=len(CLASSES)))
    else:
        loss = instantiate(node, Loss, num_classes=len(CLASSES), class_names=CLASSES, ignore_index=255)
        conformance.check_loss(loss, len(CLASSES), 255)


def _rebuilt(node: Mapping[str, Any], **changes: Any) -> Encoder:
    built: Encoder = instantiate({**node, **changes}, Encoder)
    return built
