"""Experiments as values, runs as commands: resolve, plan, train, track, compare."""
