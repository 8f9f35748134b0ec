"""The text towers of the transformers library (CLIP, SigLIP): texts become a classifier of images."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, AutoTokenizer

from lightning_vision.encoders.hub import offline_if_unreachable
from lightning_vision.encoders.huggingface_load import explained, quiet
from lightning_vision.encoders.text import TextClassifier
from lightning_vision.errors import ConfigError

# Texts that go through the tower at once.
BATCH = 256
WAYS_OUT = ["encoder.weights=FOLDER", "decoder=classifier"]


@torch.no_grad()
def embed_texts(source: str, cache_dir: str | None, prompts: Sequence[Sequence[str]]) -> TextClassifier | None:
    """Return the classes that texts describe, or None if the model has no text tower.

    The tower and its tokenizer are loaded for this call, and let go.

    Args:
        source: Name on the hub, or folder, of the whole model.
        cache_dir: Folder for downloads.
        prompts: One or more texts for each class.

    Raises:
        ConfigError: The tower or its tokenizer cannot be loaded.
    """
    options: dict[str, Any] = {"cache_dir": cache_dir, "trust_remote_code": False}
    local = Path(source).is_dir()
    try:
        with (
            explained(f"text tower of {source}", WAYS_OUT),
            quiet(),
            nullcontext() if local else offline_if_unreachable(),
        ):
            if not hasattr(AutoConfig.from_pretrained(source, **options), "text_config"):
                return None
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            model = AutoModel.from_pretrained(source, dtype=torch.float32, **options).eval()
    except ImportError as error:
        raise ConfigError(
            f"The tokenizer of {source} needs a package that is not installed.",
            given=" ".join(str(error).split()),
            override="pip install sentencepiece protobuf",
        ) from error
    texts = [text for texts in prompts for text in texts]
    vectors = torch.cat([_embed(model, tokenizer, texts[i : i + BATCH]) for i in range(0, len(texts), BATCH)])
    means = [part.mean(0) for part in vectors.split([len(texts) for texts in prompts])]
    projection = getattr(model, "visual_projection", None)
    bias = getattr(model, "logit_bias", None)
    return TextClassifier(
        projection=None if projection is None else projection.weight.detach().clone(),
        projection_bias=None if projection is None or projection.bias is None else projection.bias.detach().clone(),
        text=F.normalize(torch.stack(means), dim=-1),
        scale=float(model.logit_scale.exp()),
        bias=0.0 if bias is None else float(bias),
    )


def _embed(model: Any, tokenizer: Any, texts: list[str]) -> Tensor:
    """Return one vector of length 1 a text."""
    length = model.config.text_config.max_position_embeddings
    # SigLIP reads the last token, and was trained with texts that are all padded to the full length.
    padding = "max_length" if model.config.model_type == "siglip" else "longest"
    # All were trained with lower case and padding at the right, which not every published tokenizer says.
    tokens = tokenizer(
        [text.lower() for text in texts],
        padding=padding,
        padding_side="right",
        max_length=length,
        truncation=True,
        return_tensors="pt",
    )
    return F.normalize(model.get_text_features(**tokens).pooler_output, dim=-1)
