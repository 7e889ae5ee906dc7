"""Layers that can be mapped over tasks, put in the place of torch's."""
