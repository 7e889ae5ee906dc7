"""What a run writes: checkpoints, metrics, pictures."""
