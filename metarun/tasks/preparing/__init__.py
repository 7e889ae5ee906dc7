"""Preparations: how a source makes its inputs from raw examples, so that a checkpoint can do the same."""
