"""Functions recorded as flat programs."""
