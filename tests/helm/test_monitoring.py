"""Alerts and dashboard ask for metrics that exist, and alerts fire when they should."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.gauges import RANK_GAUGES, RUN_GAUGES
from orchestrator.reporter import SLOW
from tests.helm.manifests import NAMESPACE, ROOT, changed, example, only, render

pytest.importorskip("helm_python", reason="no wheel for this machine: rendering needs Linux x86_64")
VALUES = example("eks-spot-64gpu")
EXPORTED = {f"ray_{name}" for name in RUN_GAUGES | RANK_GAUGES}
FOUND = [os.environ.get("PROMTOOL"), str(ROOT / "var/tools/promtool"), shutil.which("promtool")]
PROMTOOL = next((path for path in FOUND if path and Path(path).exists()), None)
needs_promtool = pytest.mark.skipif(
    not PROMTOOL, reason="no promtool; `make var/tools/promtool` gets it"
)


def groups(values: dict[str, Any] = VALUES) -> list[dict[str, Any]]:
    return list(only(render(values, all_apis=True), "PrometheusRule")["spec"]["groups"])


def dashboard() -> dict[str, Any]:
    data = only(render(VALUES), "ConfigMap", "-dashboard")["data"]
    return dict(json.loads(data["orchestrator.json"]))


def expressions() -> list[str]:
    rules = [rule["expr"] for group in groups() for rule in group["rules"]]
    targets = [t["expr"] for panel in dashboard()["panels"] for t in panel["targets"]]
    return [*rules, *targets]


def test_every_metric_that_is_asked_for_is_exported() -> None:
    asked = {name for text in expressions() for name in re.findall(r"\bray_\w+", text)}
    assert asked <= EXPORTED
    assert EXPORTED - asked <= {"ray_orchestrator_tflop_per_second"}


def test_reporter_tells_every_figure_that_is_exported() -> None:
    source = (ROOT / "orchestrator" / "reporter.py").read_text()
    source += (ROOT / "orchestrator" / "worker.py").read_text()
    for name, (figure, _) in (RUN_GAUGES | RANK_GAUGES).items():
        assert f'"{figure}"' in source or f'"{figure.rstrip("*")}{{' in source, name


def test_straggler_is_the_same_in_the_log_and_in_the_alert() -> None:
    (rule,) = [r for r in groups()[0]["rules"] if r["alert"] == "OrchestratorStraggler"]
    assert float(rule["expr"].rpartition(">")[2]) == SLOW


def test_checkpoints_may_be_as_old_as_the_values_say() -> None:
    rules = groups(changed(VALUES, monitoring__checkpointMinutes=7))[0]["rules"]
    assert rules[0]["expr"].endswith("> 420")


def test_every_alert_has_its_page() -> None:
    path = ROOT / "docs" / "alerts.md"
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", text.lower()).replace(" ", "-") for text in headings}
    for rule in groups()[0]["rules"]:
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page == "docs/alerts.md"
        assert anchor in anchors, rule["alert"]


@needs_promtool
def test_prometheus_parses_every_expression(tmp_path: Path) -> None:
    rules = [{"record": f"r{n}", "expr": text} for n, text in enumerate(expressions())]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    done = subprocess.run(
        [str(PROMTOOL), "check", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# alert: (what makes it fire, what does not), as {series: a value a minute} in promtool's notation.
RUN = f'{{namespace="{NAMESPACE}", run="a", experiment="e"}}'
ELSEWHERE = RUN.replace(NAMESPACE, "elsewhere")
CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "OrchestratorCheckpointOld": (
        {f"ray_orchestrator_checkpoint_timestamp_seconds{RUN}": "0x120"},
        {f"ray_orchestrator_checkpoint_timestamp_seconds{RUN}": "0+60x120"},
    ),
    "OrchestratorStalled": (
        {f"ray_orchestrator_step{RUN}": "7x120"},
        {f"ray_orchestrator_step{RUN}": "0+1x120"},
    ),
    "OrchestratorRolledBack": (
        {f"ray_orchestrator_rollbacks{RUN}": "1x120"},
        {f"ray_orchestrator_rollbacks{RUN}": "0x120"},
    ),
    "OrchestratorWaitsForData": (
        {
            f"ray_orchestrator_data_wait_seconds{RUN}": "0.2x120",
            f"ray_orchestrator_step_seconds{RUN}": "1x120",
        },
        {
            f"ray_orchestrator_data_wait_seconds{RUN}": "0.05x120",
            f"ray_orchestrator_step_seconds{RUN}": "1x120",
        },
    ),
    "OrchestratorGoodputLow": (
        {f'ray_orchestrator_goodput{RUN[:-1]}, of="fraction"}}': "0.5x120"},
        {
            f'ray_orchestrator_goodput{RUN[:-1]}, of="fraction"}}': "0.9x120",
            f'ray_orchestrator_goodput{RUN[:-1]}, of="lost"}}': "0.01x120",
        },
    ),
    "OrchestratorStraggler": (
        {
            f"ray_orchestrator_compute_slowest_seconds{RUN}": "2x120",
            f"ray_orchestrator_compute_seconds{RUN}": "1x120",
        },
        {
            f"ray_orchestrator_compute_slowest_seconds{RUN}": "1.2x120",
            f"ray_orchestrator_compute_seconds{RUN}": "1x120",
        },
    ),
    "OrchestratorSamplesRejected": (
        {f'ray_orchestrator_rejected_samples{RUN[:-1]}, rank="3"}}': "1x120"},
        {f"ray_orchestrator_rejected_samples{ELSEWHERE}": "1x120"},
    ),
    "OrchestratorRayNotScraped": (
        {f'up{{namespace="{NAMESPACE}", job="demo-orchestrator-ray-metrics", pod="p"}}': "0x120"},
        {f'up{{namespace="{NAMESPACE}", job="another", pod="p"}}': "0x120"},
    ),
}


def test_every_alert_has_a_case() -> None:
    assert {rule["alert"] for rule in groups()[0]["rules"]} == set(CASES)


@needs_promtool
def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups()}))
    tests = []
    for alert, (wrong, right) in CASES.items():
        for series, fires in ((wrong, True), (right, False)):
            query = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) or vector(0)'
            expected = {"expr": query, "eval_time": "110m"}
            expected["exp_samples"] = [{"labels": "{}", "value": int(fires)}]
            tests.append(
                {
                    "name": f"{alert} {fires}",
                    "interval": "1m",
                    "input_series": [{"series": k, "values": v} for k, v in series.items()],
                    "promql_expr_test": [expected],
                }
            )
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": tests}))
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
