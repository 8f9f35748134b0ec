"""A CLIP of a few thousand random weights with a tokenizer of single letters, for tests without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def clip_tokenizer() -> Any:
    """Return byte pairs: every letter, with and without the end of a word, and two merges."""
    merges = [("c", "a"), ("ca", "t</w>")]
    pieces = [*LETTERS, ",", *(f"{c}</w>" for c in (*LETTERS, ",")), "ca", "cat</w>"]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    make: Any = transformers.CLIPTokenizer  # its annotations know no pairs
    return make(vocab=vocab, merges=merges, model_max_length=77)


def clip_model() -> Any:
    """Return a model of images of 32 pixels a side and of texts."""
    vision = {**TOWER, "image_size": 32, "patch_size": 8}
    # A pad token that is also the end of the text, as published.
    text = {**TOWER, "vocab_size": 58, "max_position_embeddings": 40, "bos_token_id": 56, "eos_token_id": 57}
    return transformers.CLIPModel(transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=8))


def write_clip(folder: Path) -> Path:
    """Save model and tokenizer as the library does; returns the folder."""
    clip_model().save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    return folder
