"""The demonstration: a whole Turnout on this machine, its providers dying one by one. Everything in it is real."""

from gateway.demo.play import run

__all__ = ["run"]
