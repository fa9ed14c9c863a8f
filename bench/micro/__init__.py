"""Micro-benchmarks of the core operations: `pytest bench/micro`."""
