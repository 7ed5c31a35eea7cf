"""Readers against input that nobody meant well: `python -m tests.fuzz --seconds 600`."""
