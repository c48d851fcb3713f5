"""Measurements, none of them a test: `python -m benchmarks` is the whole, the others one question each."""
