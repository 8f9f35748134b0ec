"""Texts as classifiers: the logits are those of the library's own model of images and texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from torch.nn import functional as F
from transformers.utils import logging as hf_logging

from lightning_vision.encoders.huggingface import HuggingFaceEncoder
from lightning_vision.encoders.text import TextClassifier
from lightning_vision.errors import ConfigError
from lightning_vision.testing.clip import LETTERS, TOWER, clip_model, clip_tokenizer

VISION = {**TOWER, "image_size": 32, "patch_size": 8}
PROMPTS = ["a photo of a cat", "a dog", "two birds in a tree, far away"]


def siglip_tokenizer() -> Any:
    """Unigrams, as SigLIP has them; its own class would need sentencepiece for the same."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -3.0), ("▁cat", -2.0), (",", -4.0)]
    fast = Tokenizer(models.Unigram([*pieces, *((c, -4.0) for c in LETTERS)], unk_id=2))
    fast.normalizer = normalizers.Lowercase()
    fast.pre_tokenizer = pre_tokenizers.Metaspace()
    fast.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    return hf.PreTrainedTokenizerFast(tokenizer_object=fast, model_input_names=["input_ids"], **special)


def siglip2_tokenizer() -> Any:
    """Gemma's byte pairs in lower case."""
    special = {piece: i for i, piece in enumerate(("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"))}
    vocab = {**special, **{piece: i + 5 for i, piece in enumerate(["▁", ",", *LETTERS, "ca", "cat"])}}
    merges = [("c", "a"), ("ca", "t")]
    return hf.Siglip2Tokenizer(vocab=vocab, merges=merges, model_input_names=["input_ids"])


def siglip_model() -> Any:
    text = {**TOWER, "vocab_size": 64, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 1}
    model = hf.SiglipModel(hf.SiglipConfig(vision_config=VISION, text_config=text))
    with torch.no_grad():
        model.logit_scale.fill_(2.3)
        model.logit_bias.fill_(-7.0)
    return model


FAMILIES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "clip": (clip_model, clip_tokenizer),
    "siglip": (siglip_model, siglip_tokenizer),
    "siglip2": (siglip_model, siglip2_tokenizer),
}


def published(family: str, folder: Path) -> tuple[Any, Any]:
    torch.manual_seed(0)
    make_model, make_tokenizer = FAMILIES[family]
    hf_logging.disable_progress_bar()
    model = make_model().eval()
    model.save_pretrained(folder)
    hf_logging.enable_progress_bar()
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def logits(found: TextClassifier, embedding: Tensor) -> Tensor:
    if found.projection is not None:
        embedding = F.linear(embedding, found.projection, found.projection_bias)
    return found.scale * F.normalize(embedding, dim=-1) @ found.text.mT + found.bias


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_librarys_own(family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = published(family, tmp_path)
    encoder = HuggingFaceEncoder(family, str(tmp_path), trainable=False)
    padding: dict[str, Any] = {"padding": True} if family == "clip" else {"padding": "max_length", "max_length": 64}
    padding["padding_side"] = "right"  # as published; the class of SigLIP 2 has another default
    tokens = tokenizer(PROMPTS, return_tensors="pt", **padding)
    assert len({tuple(ids) for ids in tokens["input_ids"].tolist()}) == 3
    x = torch.randn(2, 3, 32, 32)
    capsys.readouterr()
    found = encoder.text_classifier([[prompt] for prompt in PROMPTS])
    assert capsys.readouterr().err == ""
    with torch.no_grad():
        expected = model(pixel_values=x, **tokens).logits_per_image
        assert expected.std(1).min() > 1e-3, "texts that are all alike prove nothing"
        torch.testing.assert_close(logits(found, encoder.embed(x)), expected)
    # Capital letters were never seen in training.
    shouted = encoder.text_classifier([[prompt.upper()] for prompt in PROMPTS])
    torch.testing.assert_close(shouted.text, found.text)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_several_texts_a_class_are_averaged(family: str, tmp_path: Path) -> None:
    published(family, tmp_path)
    encoder = HuggingFaceEncoder(family, str(tmp_path), trainable=False)
    single = encoder.text_classifier([[prompt] for prompt in PROMPTS]).text
    found = encoder.text_classifier([PROMPTS[:2], PROMPTS[2:]]).text
    mean = (single[0] + single[1]) / 2
    torch.testing.assert_close(found, torch.stack([mean / mean.norm(), single[2]]))
    assert not found.requires_grad


def test_the_tower_lies_where_the_weights_came_from(tmp_path: Path) -> None:
    published("clip", tmp_path / "whole")
    whole = HuggingFaceEncoder("clip", str(tmp_path / "whole"))
    expected = whole.text_classifier([["a cat"]])
    for weights in (tmp_path / "whole", tmp_path / "whole" / "model.safetensors"):
        encoder = HuggingFaceEncoder("clip", "openai/clip-vit-base-patch32", weights=str(weights))
        torch.testing.assert_close(encoder.text_classifier([["a cat"]]).text, expected.text)
    # Fine-tuned weights of the images alone: the texts are those of the name.
    hf_logging.disable_progress_bar()
    whole.model.save_pretrained(tmp_path / "tuned")
    hf_logging.enable_progress_bar()
    encoder = HuggingFaceEncoder("clip", str(tmp_path / "whole"), weights=str(tmp_path / "tuned"))
    torch.testing.assert_close(encoder.text_classifier([["a cat"]]).text, expected.text)


def test_long_texts_are_cut(tmp_path: Path) -> None:
    published("clip", tmp_path)
    encoder = HuggingFaceEncoder("clip", str(tmp_path))
    assert encoder.text_classifier([["a cat " * 50]]).text.shape == (1, 8)


def test_an_encoder_that_saw_no_texts_says_so(tmp_path: Path) -> None:
    hf_logging.disable_progress_bar()
    hf.Dinov2Model(hf.Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)).save_pretrained(
        tmp_path / "dinov2"
    )
    hf_logging.enable_progress_bar()
    for encoder in (HuggingFaceEncoder("dinov2", str(tmp_path / "dinov2")), HuggingFaceEncoder("clip", "x", skip=True)):
        with pytest.raises(ConfigError, match="clip, siglip, siglip2"):
            encoder.text_classifier([["a cat"]])


def test_without_a_network_there_are_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_vision.encoders.hub.reachable", lambda: False)
    encoder = HuggingFaceEncoder("clip", "nobody/nothing", VISION, use_pretrained=False)
    with pytest.raises(ConfigError, match="text tower of nobody/nothing") as caught:
        encoder.text_classifier([["a cat"]])
    assert caught.value.overrides == ["encoder.weights=FOLDER", "decoder=classifier"]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    published("siglip", tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": "SiglipTokenizer"}))
    encoder = HuggingFaceEncoder("siglip", str(tmp_path))

    def absent(*args: Any, **kwargs: Any) -> None:
        raise ImportError("SiglipTokenizer requires the SentencePiece library")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", absent)
    with pytest.raises(ConfigError, match="pip install sentencepiece"):
        encoder.text_classifier([["a cat"]])
