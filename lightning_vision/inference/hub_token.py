"""Whether there is a token of the hub. No torch import: it is asked before anything is loaded."""

from __future__ import annotations

from lightning_vision.errors import ConfigError


def require_token() -> None:
    """Refuse to upload without a token, before anything else is done.

    Raises:
        ConfigError: huggingface_hub knows none.
    """
    from huggingface_hub import get_token

    if get_token() is None:
        raise ConfigError(
            "Uploading needs a token of the Hugging Face Hub, and there is none.",
            given="push=",
            expected="the environment variable HF_TOKEN, or a login that is kept",
            override=["hf auth login", "push=null"],
        )
