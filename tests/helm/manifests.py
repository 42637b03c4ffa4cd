"""Renders the chart in this process (Helm's own SDK, version 4) and checks what comes out."""

import copy
import functools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "orchestrator"
EXAMPLES = sorted(path.stem for path in (CHART / "examples").glob("*.yaml"))
CRDS = ROOT.parent / "shared" / "data" / "kuberay-crds"
RELEASE, NAMESPACE = "demo", "training"
Manifest = dict[str, Any]


def example(name: str) -> dict[str, Any]:
    """The values of an example, a fresh copy each time."""
    return dict(yaml.safe_load((CHART / "examples" / f"{name}.yaml").read_text()))


def changed(values: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """`values` with `a__b=c` as values["a"]["b"] = c; a number between `__` indexes a list."""
    out = copy.deepcopy(values)
    for path, value in changes.items():
        *parents, last = path.split("__")
        at: Any = out
        for name in parents:
            at = at[int(name)] if name.isdigit() else at.setdefault(name, {})
        at[last] = value
    return out


@functools.cache
def _charts() -> tuple[Any, Any]:
    """The chart as it is, and as a cluster sees it that knows every API."""
    import helm_python

    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "orchestrator"
        shutil.copytree(CHART, copied)
        (copied / "templates" / "_knows.tpl").write_text(
            '{{- define "orchestrator.knows" }}{{ true }}{{ end }}'
        )
        return helm_python.Chart.load(CHART), helm_python.Chart.load(copied)


def render_text(
    values: dict[str, Any], *, release: str = RELEASE, all_apis: bool = False
) -> dict[str, str]:
    """{template: what it renders}. Raises helm_python.HelmError for wrong values."""
    chart = _charts()[all_apis]
    chart.validate_schema(values)
    out: dict[str, str] = chart.render(values, name=release, namespace=NAMESPACE)
    return {name.partition("/templates/")[2]: text for name, text in out.items()}


def render(
    values: dict[str, Any], *, release: str = RELEASE, all_apis: bool = False
) -> list[Manifest]:
    """Every manifest, in no order that matters."""
    texts = render_text(values, release=release, all_apis=all_apis)
    return [
        manifest
        for name, text in texts.items()
        if name.endswith(".yaml")
        for manifest in yaml.load_all(text, yaml.CSafeLoader)
        if manifest
    ]


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    """Those of a kind."""
    return [each for each in manifests if each["kind"] == kind]


def only(manifests: list[Manifest], kind: str, name: str = "") -> Manifest:
    """The one of a kind whose name ends so."""
    (found,) = [m for m in of_kind(manifests, kind) if m["metadata"]["name"].endswith(name)]
    return found


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """(where, the pod template) of every pod that the manifests lead to, Ray's included."""
    for each in manifests:
        where = f"{each['kind']} {each['metadata']['name']}"
        spec = each.get("spec", {})
        if each["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield where, spec["template"]
        if each["kind"] == "RayJob":
            yield f"{where} submitter", spec["submitterPodTemplate"]
        if each["kind"] in ("RayCluster", "RayJob"):
            ray = spec.get("rayClusterSpec", spec)
            yield f"{where} head", ray["headGroupSpec"]["template"]
            for group in ray["workerGroupSpecs"]:
                yield f"{where} {group['groupName']}", group["template"]


def ray_specs(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """(where, the spec) of every Ray cluster."""
    for each in manifests:
        if each["kind"] in ("RayCluster", "RayJob"):
            yield (
                f"{each['kind']} {each['metadata']['name']}",
                each["spec"].get("rayClusterSpec", each["spec"]),
            )


def env(pod: Manifest) -> dict[str, Any]:
    """The variables of a pod's first container: a text, or the reference it comes from."""
    return {
        each["name"]: each.get("value", each.get("valueFrom"))
        for each in pod["spec"]["containers"][0]["env"]
    }


@functools.cache
def crd_checks() -> dict[str, Callable[[Manifest], None]]:
    """By kind, a check that raises jsonschema.ValidationError as the API server would refuse."""
    checks = {}
    for path in CRDS.glob("*.yaml"):
        crd = yaml.load(path.read_text(), yaml.CSafeLoader)
        for version in crd["spec"]["versions"]:
            if version["name"] == "v1":
                schema = version["schema"]["openAPIV3Schema"]
                checks[crd["spec"]["names"]["kind"]] = _check(schema)
    return checks


def _check(schema: dict[str, Any]) -> Callable[[Manifest], None]:
    validator = jsonschema.Draft7Validator(_as_json_schema(schema, is_root=True))

    def check(manifest: Manifest) -> None:
        filled = copy.deepcopy(manifest)
        _fill_defaults(schema, filled)
        validator.validate(filled)

    return check


def _fill_defaults(schema: dict[str, Any], value: Any) -> None:
    """What the API server does first."""
    if isinstance(value, list):
        for item in value:
            _fill_defaults(schema.get("items", {}), item)
    if isinstance(value, dict):
        extra = schema.get("additionalProperties")
        for name, item in value.items():
            known = schema.get("properties", {}).get(name)
            _fill_defaults(known or (extra if isinstance(extra, dict) else {}), item)
        for name, known in schema.get("properties", {}).items():
            if "default" in known and name not in value:
                value[name] = copy.deepcopy(known["default"])


def _as_json_schema(schema: Any, *, is_root: bool = False) -> Any:
    """An OpenAPI schema of Kubernetes as JSON Schema, in which an unknown field is an error."""
    if isinstance(schema, list):
        return [_as_json_schema(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = ("enum", "default", "required", "x-kubernetes-validations")
    out = {
        name: value
        if name in kept
        else {key: _as_json_schema(each) for key, each in value.items()}
        if name == "properties"
        else _as_json_schema(value)
        for name, value in schema.items()
    }
    if out.get("x-kubernetes-int-or-string"):
        out.pop("type", None)
        out["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if out.pop("nullable", False) and "type" in out:
        out["type"] = [out["type"], "null"]
    free = out.get("additionalProperties") or out.get("x-kubernetes-preserve-unknown-fields")
    if "properties" in out and not free:
        out["additionalProperties"] = False
    if is_root:
        out["properties"]["metadata"] = {"type": "object"}
    return out
