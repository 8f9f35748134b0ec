"""Sweeps (``-m``): which trials there are, how each is run, and what became of them.

No torch import here: a sweep whose trials have processes of their own needs none, and a mistake is told at once.
"""
