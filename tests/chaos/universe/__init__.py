"""Whole universes in virtual time: real engines on a real store, with everything round them played from one seed."""
