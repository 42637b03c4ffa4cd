"""Figures that a worker tells are what Prometheus gets from its node."""

import re
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

DEADLINE_S = 60.0
FIGURES = {
    "step": 5.0,
    "train/g_loss": 1.5,
    "train/d_loss": 1.25,
    "sys/clips_per_s": 64.0,
    "goodput/fraction": 0.75,
    "checkpoint_at": 1_700_000_000.0,
    "rejected": 2.0,
    "sys/system_memory": 1.0,  # not one of the gauges
}


@pytest.fixture(scope="module")
def metrics_url() -> Iterator[str]:
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=True,
        _node_ip_address="127.0.0.1",
        _system_config={"metrics_report_interval_ms": 500},  # else 10 s
    )
    yield f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    ray.shutdown()


def scraped(url: str) -> dict[tuple[str, ...], float]:
    """{(name, run, the tag of its own, rank): value} of our gauges."""
    try:
        text = urllib.request.urlopen(url).read().decode()
    except OSError:
        return {}
    out = {}
    for name, labels, value in re.findall(r"^(ray_orchestrator_\w+){(.*)} (\S+)$", text, re.M):
        tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        key = (name, tags["run"], tags.get("of", ""), tags.get("rank", ""))
        out[key] = float(value)
    return out


def eventually(url: str, expected: dict[tuple[str, ...], float]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while scraped(url) != expected:
        assert time.monotonic() < deadline, scraped(url)
        time.sleep(0.2)


def test_gauges_told_by_a_worker_are_exported_by_its_node_and_go_with_it(metrics_url: str) -> None:
    import ray

    class Worker:
        def __init__(self) -> None:
            from orchestrator.gauges import Gauges

            self._gauges = Gauges(run="vgan-1", experiment="vgan", rank=3)

        def tell(self, figures: dict[str, Any]) -> None:
            self._gauges.tell(figures)

    worker = ray.remote(Worker).remote()
    ray.get(worker.tell.remote(FIGURES))
    expected = {
        ("ray_orchestrator_step", "vgan-1", "", ""): 5.0,
        ("ray_orchestrator_train", "vgan-1", "g_loss", ""): 1.5,
        ("ray_orchestrator_train", "vgan-1", "d_loss", ""): 1.25,
        ("ray_orchestrator_clips_per_second", "vgan-1", "", ""): 64.0,
        ("ray_orchestrator_goodput", "vgan-1", "fraction", ""): 0.75,
        ("ray_orchestrator_checkpoint_timestamp_seconds", "vgan-1", "", ""): 1_700_000_000.0,
        ("ray_orchestrator_rejected_samples", "vgan-1", "", "3"): 2.0,
    }
    eventually(metrics_url, expected)
    ray.kill(worker)
    eventually(metrics_url, {})
