"""Policies: sentences ops write in TOML, and the pure verbs behind them."""
