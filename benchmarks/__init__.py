"""Benchmarks: how fast each part is on this machine, and what results vary by."""
