"""What an action was given: a composed config, or words and names, and which keys were typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from omegaconf import DictConfig

from lightning_vision.actions.heeded import refuse_unheeded
from lightning_vision.config import compose, parts_by_key, with_ludwig
from lightning_vision.errors import ConfigError
from lightning_vision.overrides import names_ludwig, override_keys
from lightning_vision.settings import OWN
from lightning_vision.signatures import class_constants

EXAMPLE_CHECKPOINT = "checkpoint=outputs/DATE/TIME/checkpoints/best.ckpt"


def composed(config: DictConfig | Sequence[str] | None, choices: Mapping[str, Any], action: str) -> DictConfig:
    """Compose unless that was done already."""
    return composed_with_keys(config, choices, action)[0]


def composed_with_keys(
    config: DictConfig | Sequence[str] | None, choices: Mapping[str, Any], action: str
) -> tuple[DictConfig, list[str]]:
    """Compose unless that was done already; name the keys that were given.

    Of a config that was composed in Python these are all that it may decide beside a checkpoint; in a fit or a check,
    all.

    Raises:
        ConfigError: A setting is wrong, or one that this action does not heed.
    """
    cfg, keys = _composed(config, choices, complete=action in ("fit", "check"))
    refuse_unheeded(cfg, action)
    return cfg, keys


def _composed(
    config: DictConfig | Sequence[str] | None, choices: Mapping[str, Any], complete: bool
) -> tuple[DictConfig, list[str]]:
    if isinstance(config, DictConfig):
        from hydra.core.hydra_config import HydraConfig

        if HydraConfig.initialized():
            return config, override_keys(HydraConfig.get().overrides.task)
        return config, [str(key) for key in config if complete or key in OWN]
    words, named = [config] if isinstance(config, str) else list(config or ()), dict(choices)
    extra = parts_by_key(named.pop("overrides", {}))
    named = parts_by_key(named)
    data = named.get("data")
    if data is not None and not isinstance(data, str):
        from lightning_vision.data.sources.in_python import is_dataset, settings_of

        if is_dataset(data) or not isinstance(data, Mapping):
            named["data"] = "table"
            extra = settings_of(data, extra.get("preprocessing.lazy_cache_dir")) | extra
    blamed: AbstractContextManager[None] = nullcontext()
    if "ludwig" in named or names_ludwig(words):
        # Columns of a table that is written here are not those of the file's data.
        unread = ("data.image", "data.inputs", "data.target") if isinstance(data, tuple | list) else ()
        words, blamed = with_ludwig(words, named | extra, unread)
        named.pop("ludwig", None)
    keys = override_keys(words) + list(named) + list(extra)
    with blamed:
        return compose(words, **named, **extra), keys


def required(cfg: DictConfig, key: str, example: str) -> str:
    """Return a setting without which the action of the command line can do nothing."""
    if cfg[key] is None:
        raise ConfigError(f"{cfg.action} needs {key}=.", expected=f"{key}=PATH", override=f"{cfg.action} {example}")
    return str(cfg[key])


def checkpoint_of(cfg: DictConfig) -> str | None:
    """The checkpoint, or None where the decoder needs no training."""
    if cfg.checkpoint is None:
        require_ready(cfg)
        return None
    return str(cfg.checkpoint)


def require_ready(cfg: DictConfig) -> None:
    """Refuse an untrained model whose predictions would mean nothing."""
    decoder = str(cfg.decoder.get("_target_"))
    if not class_constants(decoder).get("ready"):
        raise ConfigError(
            "This decoder must be trained before it predicts.",
            given=f"no checkpoint, and {decoder}",
            expected="a checkpoint, or a pretrained encoder with a decoder that needs none: pretrained, zero_shot",
            override=[EXAMPLE_CHECKPOINT, "decoder=pretrained encoder=resnet"],
        )
