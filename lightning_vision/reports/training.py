"""What a fit has trained, and how its encoder was treated, in a few lines under the last epoch."""

from __future__ import annotations

from lightning_vision.module import VisionModule


def training_lines(module: VisionModule) -> list[str]:
    """Say how many parameters were trained, at which rates those of the encoder, and what its cache was good for."""
    total = sum(p.numel() for p in module.parameters())
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    share = 100 * trained / max(total, 1)
    # All is 100 %, and nothing less is.
    line = f"trained  {trained} of {total} parameters ({share if trained == total else min(share, 99.9):.3g} %)"
    inside = sum(p.numel() for p in module.encoder.parameters() if p.requires_grad)
    if module.config.get("encoder", {}).get("adapter") is not None:
        line += f", {inside} of them in the encoder's adapter"
    return [line, f"encoder  {_encoder(module, inside)}", *_cache(module)]


def _encoder(module: VisionModule, trained: int) -> str:
    if not trained:
        return "frozen"
    low, high = min(module.encoder_rates, default=0.0), max(module.encoder_rates, default=0.0)
    text = f"rate {high:.3g} (encoder_lr_factor {module.encoder_lr_factor:g})"
    if module.encoder_layer_decay is not None:
        layers = len(module.encoder_rates)
        text += f" down to {low:.3g} in {layers} layers (encoder_layer_decay {module.encoder_layer_decay:g})"
    if module.freezing is not None:
        text += f", frozen in the first {module.freezing.epochs} epochs"
    return text


def _cache(module: VisionModule) -> list[str]:
    if module.embeddings is None or not module.embeddings.usage.rows:
        return []
    usage = module.embeddings.usage
    line = f"cache    embeddings of {usage.rows} samples, {usage.nbytes / 1e6:.1f} MB in {usage.folder}: "
    line += f"{usage.encoded} encoded in {usage.seconds:.1f} s, {usage.read} read"
    if usage.too_large:
        line += f"; {usage.too_large} times an image was encoded anew, too large for half precision"
    return [line]
