"""The benchmark behind `scripts/benchmark`.

`rows` lists the measurements, `loops` holds the plain loops to compare with, `timing` and `measure` take the times, `report` prints them.

Each row runs in its own process, because metarun changes settings of its process for good: the thresholds of the allocator and the number
of threads. The first timing of each row is therefore a plain loop in a process that metarun has not touched.
"""
