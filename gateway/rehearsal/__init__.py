"""
What would have become of recorded traffic under other policies: the real planner, board and breakers in virtual time,
over providers that behave as they were recorded. Sends nothing, writes nothing.
"""
