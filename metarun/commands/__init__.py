"""What each command does, without Hydra."""
