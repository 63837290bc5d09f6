"""The stopwatch: one endpoint, one clock and one receiver for processes, containers and virtual
machines.
"""
