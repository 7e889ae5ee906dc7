"""Pure functions recorded as flat programs of tensor operations. `recording.Recorded` is the one name for other folders."""
