"""What tests of this package and of plugins share: a tiny encoder, and the checks that every part must pass."""
