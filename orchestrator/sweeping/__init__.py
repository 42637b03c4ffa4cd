"""A sweep from its plan to its best trial: `orchestrator.sweep` is the command, `sweeps` the list.

`plan` resolves, `start` is one start of it, `conduct` decides, `journal` remembers. Only `tuning`
and a trial's actor, `driver`, know Ray Tune. What people see is drawn from `rows`: `report` in
MLflow, `progress` in a terminal.
"""
