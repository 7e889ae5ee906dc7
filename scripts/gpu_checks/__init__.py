"""The checks of a GPU: `scripts/gpu_check`.

`__main__` starts each part in a process of its own and collects the results in one JSON file. `parts` lists the parts. `part` runs one of
them. `suite` runs the CUDA tests, `agreement` compares the device with the CPU, `steps` times a step beside the plain loop in `loops`,
`waiting` measures the share of time in which the GPU waits, and `repeats` compares runs bit by bit.
"""
