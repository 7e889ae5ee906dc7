"""Backbones: embedding networks with `out_features`."""
