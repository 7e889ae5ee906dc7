"""Kernels in C for recorded programs."""
