"""Several runs side by side: what their folders hold, and which of them is better. Reading a folder needs neither torch nor Hydra."""
