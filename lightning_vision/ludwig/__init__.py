"""Configs of Ludwig in our words: ``ludwig=FILE`` on the command line and in Python. No torch, no Hydra."""
