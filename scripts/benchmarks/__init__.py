"""The benchmark behind `scripts/benchmark`: what is measured (rows), against what (loops), how (timing, measure), and the report.

Every row is measured in a process of its own, since metarun changes settings of its process for good: the allocator's thresholds, the
number of threads. So the first timing of each row is of a plain loop that metarun has not touched.
"""
