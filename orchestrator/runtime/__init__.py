"""The production host: Ray Serve, processes, the real clock.

Nothing is imported here: `keeper` must start in milliseconds, and the rest brings Ray along.
"""
