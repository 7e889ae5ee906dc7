"""Task sources: where episodes come from, one source per file."""
