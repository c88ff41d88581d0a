"""
The public test kit: a clock that is set by hand, an event loop in which waiting takes no time, a provider that acts.

For tests of the engine and of whatever drives a `contract.provider.Driver`. No product code imports it.
"""

from gateway.testing.provider import Actor, FakeProvider, Job, Script, recognise, signature
from gateway.testing.virtual import START, ManualClock, Stalled, VirtualLoop, run_virtual

__all__ = [
    "START",
    "Actor",
    "FakeProvider",
    "Job",
    "ManualClock",
    "Script",
    "Stalled",
    "VirtualLoop",
    "recognise",
    "run_virtual",
    "signature",
]
