"""Necks: maps of one scale become a pyramid."""
