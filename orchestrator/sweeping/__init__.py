"""A sweep from its plan to its best trial: `orchestrator.sweep` is the command, `sweeps` the list.

`plan` resolves, `start` is one start of it, `conduct` decides, `journal` remembers, `tuning` alone
knows Ray Tune. What people see is drawn from `rows`: `report` in MLflow, `progress` in a terminal.
"""
