"""Turnout: a gateway that routes model predictions by cost, latency or health."""

__version__ = "0.1.0"
