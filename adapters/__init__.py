"""Learning: examples in, an adapter and its measurements out.

Knows neither the server nor the schedule that calls it.
"""
