"""
Simulated providers: Replicate's dialect with invented latency, price and faults, seeded and changeable while they run.

For the demonstration, for tests, and for ops who want to rehearse a policy. Loopback only; bills nobody, keeps books.
"""

from gateway.simulator.behaviour import Behaviour
from gateway.simulator.command import add_arguments, run
from gateway.simulator.house import SECRET, Simulator

__all__ = ["SECRET", "Behaviour", "Simulator", "add_arguments", "run"]
