"""Runs beside one another: `orchestrator.compare` is the command.

`runs` finds and writes, `histories` reads MLflow, `comparison` is what is said, as plain values;
`page`, `table` and `text` are its shapes.
"""
