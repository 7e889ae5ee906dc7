"""Hydra and the shell."""
