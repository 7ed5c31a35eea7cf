"""Synthetic abdominal CT exams with invented identities: the project's own data for demos, tests and benchmarks."""

from redraft.phantom.write import PhantomReport, write_phantom

__all__ = ["PhantomReport", "write_phantom"]
