"""The outer loop, evaluation and what they need."""
