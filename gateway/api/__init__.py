"""Replicate's HTTP API over the engine. The composition root needs these, and no more of it."""

from gateway.api.application import application, routes
from gateway.api.context import Context
from gateway.api.repeat import Repeats, recall

__all__ = ["Context", "Repeats", "application", "recall", "routes"]
