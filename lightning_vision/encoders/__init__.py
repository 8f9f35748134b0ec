"""Encoders: an image becomes an embedding or a pyramid of feature maps."""
