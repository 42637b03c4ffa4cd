"""The machine's load against MLflow's own monitors, whose page shows it."""

import contextlib

import psutil
import pytest
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

from orchestrator.machine import Machine


def test_machine_load_has_the_names_and_units_of_mlflow():
    monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with contextlib.suppress(RuntimeError, ImportError):  # no GPU here
        monitors.append(GPUMonitor())
    theirs = {}
    for monitor in monitors:
        monitor.collect_metrics()
        theirs |= {f"system/{k}": v for k, v in monitor.aggregate_metrics().items()}
    load = Machine().load()
    assert load.keys() == theirs.keys()
    for name in ("system_memory_usage_megabytes", "disk_usage_megabytes", "disk_usage_percentage"):
        assert load[f"system/{name}"] == pytest.approx(theirs[f"system/{name}"], rel=0.2)
    total = psutil.virtual_memory().total / 1e6
    share = load["system/system_memory_usage_megabytes"] / total
    assert load["system/system_memory_usage_percentage"] == pytest.approx(100 * share, abs=0.1)
