"""The simulated reader: how long a human would need, and what comes back. Never mixed with measured times."""

from redraft.reader_model.alternative import VolumeParameters
from redraft.reader_model.effort import EffortParameters, Minutes
from redraft.reader_model.simulate import SimulatedReturn, simulate_reader

__all__ = ["EffortParameters", "Minutes", "SimulatedReturn", "VolumeParameters", "simulate_reader"]
