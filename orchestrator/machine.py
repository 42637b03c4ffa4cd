"""This machine's load, under the names that MLflow's page of system metrics knows."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import psutil
import pynvml


class Machine:
    """Counts from its making on. NVIDIA's accelerators are read where their driver is."""

    def __init__(self) -> None:
        self._network = psutil.net_io_counters()
        psutil.cpu_percent()  # it says what was since the call before
        self._gpus: list[Any] = []
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:
            return  # no driver, no GPU: a machine without one is no fault
        for number in range(pynvml.nvmlDeviceGetCount()):
            self._gpus.append(pynvml.nvmlDeviceGetHandleByIndex(number))

    def load(self) -> dict[str, float]:
        """Percent, MB (1e6 bytes) and W by name, such as `system/cpu_utilization_percentage`.

        Memory and disk as they are, processors since the last call, network since the making.
        """
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(os.sep)
        network = psutil.net_io_counters()
        values = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / 1e6,
            "system_memory_usage_percentage": 100 * memory.used / memory.total,
            "disk_usage_percentage": disk.percent,
            "disk_usage_megabytes": disk.used / 1e6,
            "disk_available_megabytes": disk.free / 1e6,
            "network_receive_megabytes": (network.bytes_recv - self._network.bytes_recv) / 1e6,
            "network_transmit_megabytes": (network.bytes_sent - self._network.bytes_sent) / 1e6,
        }
        for number, gpu in enumerate(self._gpus):
            values |= {f"gpu_{number}_{name}": value for name, value in _gpu_load(gpu).items()}
        return {f"system/{name}": round(value, 1) for name, value in values.items()}


def _gpu_load(gpu: Any) -> dict[str, float]:
    values: dict[str, float] = {}
    for read in (_gpu_memory, _gpu_power, _gpu_utilization):
        with suppress(pynvml.NVMLError):  # not every model, and no part of one (MIG), tells all
            values |= read(gpu)
    return values


def _gpu_memory(gpu: Any) -> dict[str, float]:
    memory = pynvml.nvmlDeviceGetMemoryInfo(gpu)
    return {
        "memory_usage_percentage": 100 * memory.used / memory.total,
        "memory_usage_megabytes": memory.used / 1e6,
    }


def _gpu_power(gpu: Any) -> dict[str, float]:
    watts = pynvml.nvmlDeviceGetPowerUsage(gpu) / 1e3
    limit = pynvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1e3
    return {"power_usage_watts": watts, "power_usage_percentage": 100 * watts / limit}


def _gpu_utilization(gpu: Any) -> dict[str, float]:
    return {"utilization_percentage": pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu}
