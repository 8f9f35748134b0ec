"""Losses: logits and targets become one number."""
