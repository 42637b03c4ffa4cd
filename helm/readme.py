"""Writes helm/orchestrator/README.md from the chart: `python helm/readme.py`.

The text comes from readme_head.md, values from values.yaml and its comments, fields of groups and
jobs from the schema, flows from the rendered NetworkPolicies. A test fails while the file differs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import yaml

CHART = Path(__file__).parent / "orchestrator"
HEAD = Path(__file__).parent / "readme_head.md"


def main() -> None:
    """Writes the file."""
    (CHART / "README.md").write_text(text())


def text() -> str:
    """The README as it should be."""
    schema = json.loads((CHART / "values.schema.json").read_text())["definitions"]
    head = HEAD.read_text().format(examples="\n".join(_examples()), flows="\n".join(_flows()))
    parts = [head, "## Values\n", *_values()]
    parts += [
        "### `workers[]`\n",
        _fields(schema["group"]),
        "### `jobs[]`\n",
        _fields(schema["job"]),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _examples() -> Iterator[str]:
    for path in sorted((CHART / "examples").glob("*.yaml")):
        says = re.match(r"(# .*\n)+", path.read_text())
        assert says, f"{path} begins with what it is"
        yield f"| `{path.stem}` | {_plain(says[0].splitlines())} |"


def _values() -> Iterator[str]:
    """A table for each top-level map of values.yaml, in its order."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    rows: list[str] = []
    for path, says, is_map in _documented():
        value: Any = defaults
        for name in path:
            value = value[name]
        if len(path) == 1:
            if rows:
                yield "\n".join(rows) + "\n"
            rows = [f"### `{path[0]}`\n", *([f"{says}\n"] if says and is_map else [])]
            rows += ["| value | default | meaning |", "| --- | --- | --- |"]
        if not is_map:
            assert says, f"values.yaml: {'.'.join(path)} has no comment"
            shown = "see below" if path == ("workers",) else f"`{json.dumps(value)}`"
            rows.append(f"| `{'.'.join(path)}` | {shown} | {says} |")
        elif len(path) > 1 and says:
            rows.append(f"| `{'.'.join(path)}` | | {says} |")
    yield "\n".join(rows) + "\n"


def _documented() -> Iterator[tuple[tuple[str, ...], str, bool]]:
    """(path, its comment, whether it is a map) of every key of values.yaml outside of lists."""
    comment: list[str] = []
    path: list[str] = []
    for line in (CHART / "values.yaml").read_text().splitlines():
        key = re.match(r"( *)([A-Za-z0-9]+):(.*)", line)
        if line.strip().startswith("#"):
            comment.append(line)
        elif key and not (key[1] and path[0] == "workers"):
            path = [*path[: len(key[1]) // 2], key[2]]
            yield tuple(path), _plain(comment), not key[3] and key[2] != "workers"
            comment = []
        elif not line.strip():
            comment = []


def _plain(comment: list[str]) -> str:
    return " ".join(line.strip().removeprefix("#").strip() for line in comment).replace("|", "\\|")


def _fields(definition: dict[str, Any]) -> str:
    rows = ["| field | needed | meaning |", "| --- | --- | --- |"]
    for name, schema in definition["properties"].items():
        needed = "yes" if name in definition["required"] else ""
        rows.append(f"| `{name}` | {needed} | {schema['description']} |")
    return "\n".join(rows) + "\n"


def _flows() -> list[str]:
    """What the NetworkPolicies of all features together allow, a row each."""
    rows: dict[tuple[str, str], str] = {}
    base = yaml.safe_load((CHART / "examples" / "eks-spot-64gpu.yaml").read_text())
    base["ray"]["gcs"] = {"redisAddress": "redis:6379", "secretName": "redis"}
    base["network"] = {"mlflowClients": ["clients"]}
    trial = yaml.safe_load((CHART / "examples" / "laptop-kind.yaml").read_text())
    outside = yaml.safe_load((CHART / "examples" / "airgapped.yaml").read_text())
    for values in (base, outside, trial):
        rendered = helm_python.Chart.load(CHART).render(values, name="orchestrator")
        policies = rendered["orchestrator/templates/network.yaml"]
        for policy in yaml.safe_load_all(policies):
            if policy:
                for row in _rows(policy):
                    _, _, to, _, why, _ = row.split("|")
                    rows.setdefault((to, why.partition(";")[0]), row)
    return list(rows.values())


def _rows(policy: dict[str, Any]) -> Iterator[str]:
    """Nothing for the receiving half of a flow whose sender is a pod of ours."""
    name, spec = policy["metadata"]["name"], policy["spec"]
    why = policy["metadata"]["annotations"]["orchestrator/why"]
    for direction, other in (("ingress", "from"), ("egress", "to")):
        for rule in spec.get(direction, []):
            ports = ", ".join(_port(each) for each in rule.get("ports", [])) or "all"
            peers = [_peer(peer, name) for peer in rule[other]]
            mine = _pods(spec["podSelector"])
            sides = (mine, ", ".join(dict.fromkeys(peers)))
            if direction == "egress":
                yield f"| {sides[0]} | {sides[1]} | {ports} | {why} |"
            elif not any("podSelector" in peer for peer in rule[other]):
                yield f"| {sides[1]} | {sides[0]} | {ports} | {why} |"


def _port(port: dict[str, Any]) -> str:
    return f"{port['port']}" + (" UDP" if port["protocol"] == "UDP" else "")


def _pods(selector: dict[str, Any]) -> str:
    components = [name for each in selector.get("matchExpressions", []) for name in each["values"]]
    return ", ".join(components) or "all"


VALUE_OF = {
    "kube-system": "`network.dnsNamespace`",
    "kuberay-operator": "`network.operatorNamespace`",
    "monitoring": "`network.monitoringNamespace`",
    "ingress-nginx": "`network.ingressNamespace`",
    "clients": "`network.mlflowClients`",
    "api-server": "`network.egress.apiServer`",
    "track": "`network.egress.mlflow`",
}


def _peer(peer: dict[str, Any], policy: str) -> str:
    if "podSelector" in peer:
        return _pods(peer["podSelector"])
    if "namespaceSelector" in peer:
        (name,) = peer["namespaceSelector"]["matchLabels"].values()
        return VALUE_OF[name]
    flow = policy.removeprefix("orchestrator-").removesuffix("-out")
    return VALUE_OF.get(flow, f"`network.egress.{flow}`")


if __name__ == "__main__":
    main()
