"""Parts for lightning_vision that live in a package of their own."""
