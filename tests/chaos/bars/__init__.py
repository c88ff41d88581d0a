"""The bars of durability, measured with real processes: failover, lost webhooks, the herd, streams, restarts."""
