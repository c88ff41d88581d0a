"""
The parts of a gateway, opened in this order, each with what stands before it: ground, keeping, routing, work, front.

`app.running` opens them. What has to be closed is put on its stack as it is opened, and closed in the reverse order.
"""
