"""People say which video is more realistic: `orchestrator.study` is the command.

`plan` says who is shown what, `clips` makes it ready, `server` shows it, `answers` keeps what they
say, `report` and `table` what it means.
"""
