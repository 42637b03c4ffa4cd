"""A trial's actor, without Ray."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from orchestrator.experiments import resolve
from orchestrator.history import STOP, History
from orchestrator.launch import Outcome
from orchestrator.site import Site
from orchestrator.sweeping.driver import Driver, Setting
from shards.storage import open_store


def test_actor_begins_its_next_trial_only_when_the_workers_of_the_one_before_have_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, steps, leaves = [], 3, threading.Event()

    def drive(job: Any, **_: Any) -> Any:
        runs.append(job)
        History(open_store(f"{tmp_path}/{job}")).report(steps, {"loss": 1.0})
        leaves.wait(60)
        return Outcome(status=None, page="")

    monkeypatch.setattr("orchestrator.sweeping.driver.STOP_GRACE_S", 0.1)
    monkeypatch.setattr("orchestrator.sweeping.driver.drive", drive)
    monkeypatch.setattr("orchestrator.sweeping.driver.dataset_version", lambda *_: "1")
    monkeypatch.setattr("orchestrator.sweeping.driver.new_job", lambda *given, **_: given[2])
    setting = Setting(
        site=Site.from_environment({"RUNS_ROOT": str(tmp_path)}),
        report_every=steps,
        experiment=lambda _: resolve("vgan_unfiltered", None, []),
        run=lambda number, _: f"run-{number}",
        tags=lambda _: {},
    )
    monkeypatch.setattr(Driver, "trial_id", "00000")
    driver = object.__new__(Driver)
    driver.setup({"values": {}}, setting)
    assert driver.step()["step"] == steps
    monkeypatch.setattr(Driver, "trial_id", "00001")
    assert driver.reset_config({"values": {}})  # an error here would be the trial's end
    assert open_store(f"{tmp_path}/run-0").read(STOP) == b""
    with pytest.raises(RuntimeError, match="the workers of run-0 do not leave"):
        driver.step()
    assert runs == ["run-0"]
    leaves.set()
    assert driver.step()["step"] == steps
    assert runs == ["run-0", "run-1"]
    driver.cleanup()
