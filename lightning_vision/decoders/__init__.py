"""Decoders: features become class logits or mask logits."""
