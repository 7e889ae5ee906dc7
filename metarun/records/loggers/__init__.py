"""Loggers: where the values and pictures of a run go beside `metrics.jsonl`."""
