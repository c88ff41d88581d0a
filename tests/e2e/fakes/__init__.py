"""Providers behind real sockets that speak by their adapters' recordings, make seeded trouble, and keep books."""
