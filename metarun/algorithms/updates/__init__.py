"""Update rules: how an inner step moves the parameters, one paper per file; the config group `algo/update`."""
