"""Wrong values never reach a cluster: for each rule of the schema a value that it refuses."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from tests.helm.manifests import CHART, changed, example, render_text

helm = pytest.importorskip("helm_python", reason="no wheel for this machine: needs Linux x86_64")
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
EKS, LAPTOP = example("eks-spot-64gpu"), example("laptop-kind")
AIRGAPPED = example("airgapped")
DIGEST = "sha256:" + 64 * "a"
GROUP = LAPTOP["workers"][0]
RUN = {"name": "a", "command": "run", "experiment": "vgan_golf"}
INGEST = {"name": "a", "command": "ingest", "arguments": ["s3://a", "s3://b"]}


def eks(**changes: Any) -> dict[str, Any]:
    return changed(EKS, **changes)


def laptop(**changes: Any) -> dict[str, Any]:
    return changed(LAPTOP, **changes)


def group(**changes: Any) -> dict[str, Any]:
    return laptop(workers=[{**GROUP, **changes}])


def job(base: dict[str, Any] = RUN, **changes: Any) -> dict[str, Any]:
    return laptop(jobs=[{**base, **changes}])


def without(values: dict[str, Any], *path: str | int) -> dict[str, Any]:
    out = copy.deepcopy(values)
    at: Any = out
    for name in path[:-1]:
        at = at[name]
    del at[path[-1]]
    return out


# What is wrong, and a word of the message that must name it.
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nothing said": ({}, "image"),
    "no image": (without(EKS, "image"), "image"),
    "image with scheme": (eks(image__repository="https://r.example.org/x"), "repository"),
    "neither digest nor tag": (eks(image__digest=""), "image"),
    "digest and tag": (eks(image__tag="1.0"), "image"),
    "tag latest": (laptop(image__tag="latest"), "tag"),
    "tag with space": (laptop(image__tag="a b"), "tag"),
    "digest of another kind": (eks(image__digest="md5:aa"), "digest"),
    "short digest": (eks(image__digest="sha256:aa"), "digest"),
    "pull policy": (eks(image__pullPolicy="Sometimes"), "pullPolicy"),
    "pull secret's name": (eks(image__pullSecrets=["Not_A_Name"]), "pullSecrets"),
    "name too long": (eks(image__pullSecrets=[254 * "a"]), "pullSecrets"),
    "Ray without authentication": (eks(ray__version="2.51.0"), "version"),
    "Ray of no version": (eks(ray__version="newest"), "version"),
    "token's secret": (eks(ray__authSecretName="A_B"), "authSecretName"),
    "head without cores": (eks(ray__head__cpu=0), "cpu"),
    "head's memory without unit": (eks(ray__head__memory="16"), "memory"),
    "head on spot, EKS": (
        eks(ray__head__nodeSelector={"eks.amazonaws.com/capacityType": "SPOT"}),
        "nodeSelector",
    ),
    "head on spot, Karpenter": (
        eks(ray__head__nodeSelector={"karpenter.sh/capacity-type": "spot"}),
        "nodeSelector",
    ),
    "head on spot, GKE": (
        eks(ray__head__nodeSelector={"cloud.google.com/gke-spot": "true"}),
        "gke-spot",
    ),
    "worker on demand on spot nodes": (
        group(nodeSelector={"karpenter.sh/capacity-type": "spot"}),
        "workers",
    ),
    "toleration's operator": (eks(ray__head__tolerations=[{"operator": "Is"}]), "operator"),
    "toleration's effect": (eks(ray__head__tolerations=[{"effect": "Never"}]), "effect"),
    "idle shorter than a restart": (eks(ray__autoscaling__idleSeconds=5), "idleSeconds"),
    "redis without port": (eks(ray__gcs={"redisAddress": "redis", "secretName": "r"}), "redis"),
    "redis without secret": (eks(ray__gcs={"redisAddress": "redis:6379"}), "secretName"),
    "redis secret's name": (eks(ray__gcs={"secretName": "A_B"}), "secretName"),
    "no group": (laptop(workers=[]), "workers"),
    "only fallback groups": (group(fallback=True), "workers"),
    "group without name": (laptop(workers=[without(GROUP, "name")]), "name"),
    "group's name": (group(name="Big_One"), "name"),
    "group called as the head": (group(name="headgroup"), "name"),
    "group of fewer than no pods": (group(min=-1), "min"),
    "group of at most fewer than no pods": (group(max=-1), "max"),
    "half a core": (group(cpu=0.5), "cpu"),
    "fewer than no GPUs": (group(gpus=-1), "gpus"),
    "no shared memory": (group(sharedMemoryGiB=0), "sharedMemoryGiB"),
    "memory in MB": (group(memory="3000MB"), "memory"),
    "priority below none": (group(priority=-1), "priority"),
    "cache kind": (laptop(cache__kind="ramdisk"), "kind"),
    "cache of no size": (laptop(cache__sizeGiB=0), "sizeGiB"),
    "relative hostPath": (laptop(cache__hostPath="nvme"), "hostPath"),
    "storage class's name": (laptop(cache__storageClassName="A_B"), "storageClassName"),
    "checkpoint quicker than a step": (eks(shutdown__checkpointSeconds=9), "checkpointSeconds"),
    "checkpoint slower than any notice": (
        eks(shutdown__checkpointSeconds=1801),
        "checkpointSeconds",
    ),
    "seconds as text": (eks(shutdown__checkpointSeconds="60"), "checkpointSeconds"),
    "shards on a disk": (eks(storage__shardsRoot="/shards"), "shardsRoot"),
    "runs nowhere": (eks(storage__runsRoot=""), "runsRoot"),
    "artifacts nowhere": (eks(storage__artifactsRoot=""), "artifactsRoot"),
    "artifacts on a disk": (eks(storage__artifactsRoot="file:/a"), "artifactsRoot"),
    "endpoint without scheme": (eks(storage__endpoint="s3.example.org"), "endpoint"),
    "credentials in a URL": (eks(storage__endpoint="https://me:pw@s3.example.org"), "endpoint"),
    "region": (eks(storage__region="US East"), "region"),
    "S3 keys instead of a secret's name": (eks(storage__secretName="AKIA/123"), "secretName"),
    "name of the authority's ConfigMap": (eks(storage__caConfigMap="A B"), "caConfigMap"),
    "annotation that is no text": (eks(serviceAccount__annotations={"a": 1}), "annotations"),
    "no server processes": (eks(mlflow__processes=0), "processes"),
    "MLflow's default of processes per core": (eks(mlflow__processes=64), "processes"),
    "MLflow without database": (eks(mlflow__database__secretName=""), "secretName"),
    "database's URI instead of a secret": (
        eks(mlflow__database__secretName="postgresql://u:p@h/d"),
        "secretName",
    ),
    "MLflow without users": (eks(mlflow__auth__secretName=""), "secretName"),
    "default permission": (eks(mlflow__auth__defaultPermission="ALL"), "defaultPermission"),
    "any host": (eks(mlflow__allowedHosts=["*"]), "allowedHosts"),
    "host too long": (eks(mlflow__allowedHosts=[254 * "a"]), "allowedHosts"),
    "origin without scheme": (eks(mlflow__allowedOrigins=["mlflow.example.org"]), "allowedOrigins"),
    "any origin": (eks(mlflow__allowedOrigins="*"), "allowedOrigins"),
    "ingress without TLS": (eks(mlflow__ingress__tlsSecretName=""), "tlsSecretName"),
    "ingress without host": (eks(mlflow__ingress__host=""), "host"),
    "ingress for every host": (eks(mlflow__ingress__host="*"), "host"),
    "ingress class": (eks(mlflow__ingress__className="A B"), "className"),
    "TLS secret's name": (eks(mlflow__ingress__tlsSecretName="A B"), "tlsSecretName"),
    "no MLflow at all": (changed(AIRGAPPED, mlflow__externalUri=""), "externalUri"),
    "MLflow elsewhere without scheme": (changed(AIRGAPPED, mlflow__externalUri="h:1"), "external"),
    "ingress to no server": (
        changed(AIRGAPPED, mlflow__ingress={"enabled": True, "host": "a.b", "tlsSecretName": "a"}),
        "ingress",
    ),
    "job without name": (laptop(jobs=[without(RUN, "name")]), "name"),
    "job called as the cluster that stays": (job(name="cluster"), "name"),
    "command": (job(command="train"), "command"),
    "run of nothing": (laptop(jobs=[without(RUN, "experiment")]), "experiment"),
    "experiment's name": (job(experiment="VGAN golf"), "experiment"),
    "ingest of an experiment": (job(INGEST, experiment="vgan_golf"), "jobs"),
    "ingest of nothing": (laptop(jobs=[without(INGEST, "arguments")]), "arguments"),
    "ingest to nowhere": (job(INGEST, arguments=["s3://a"]), "arguments"),
    "retried afresh": (job(arguments=["--fresh"]), "arguments"),
    "command after a command": (job(arguments=["a=1;env"]), "arguments"),
    "substitution": (job(arguments=["a=$(env)"]), "arguments"),
    "groups of none": (job(groups=[]), "groups"),
    "group twice": (job(groups=["cpu", "cpu"]), "groups"),
    "retries below none": (job(backoffLimit=-1), "backoffLimit"),
    "gone before the end": (job(ttlSeconds=-1), "ttlSeconds"),
    "deadline of no time": (job(deadlineSeconds=0), "deadlineSeconds"),
    "queue's name": (changed(example("gke-h100"), kueue__queue="A B"), "queue"),
    "Kueue with autoscaler": (eks(kueue__queue="training"), "enabled"),
    "priority class's name": (eks(priorityClass__name="A B"), "name"),
    "priority class made without name": (
        eks(priorityClass={"name": "", "create": True}),
        "priorityClass",
    ),
    "priority of the system": (eks(priorityClass__value=2_000_000_000), "value"),
    "priority below all": (eks(priorityClass__value=-3_000_000_000), "value"),
    "namespace": (eks(network={"dnsNamespace": "kube_system"}), "dnsNamespace"),
    "name server without mask": (eks(network={"dnsCidrs": ["169.254.20.10"]}), "dnsCidrs"),
    "address without mask": (
        eks(network={"egress": {"s3": {"cidrs": ["10.0.0.1"], "ports": [443]}}}),
        "cidrs",
    ),
    "nowhere to go": (eks(network={"egress": {"s3": {"cidrs": [], "ports": [443]}}}), "cidrs"),
    "no port": (eks(network={"egress": {"s3": {"cidrs": ["::/0"], "ports": []}}}), "ports"),
    "port 0": (eks(network={"egress": {"s3": {"ports": [0]}}}), "ports"),
    "port beyond all": (eks(network={"egress": {"s3": {"ports": [65536]}}}), "ports"),
    "alert at once": (eks(monitoring__checkpointMinutes=0), "checkpointMinutes"),
    "secret as a variable": (eks(env={"HF_TOKEN": "hf_123"}), "TOKEN"),
    "variable in lower case": (eks(env={"path": "/a"}), "path"),
    "variable that is no text": (eks(env={"A": 1}), "A"),
    "trial's database without image": (laptop(trial__postgresql__image=""), "image"),
    "trial's S3 without image": (laptop(trial__s3__image=""), "image"),
    "trial's image, latest": (laptop(trial__s3__image="chrislusf/seaweedfs:latest"), "image"),
    "trial's image without tag": (laptop(trial__postgresql__image="postgres"), "image"),
    "trial's S3 without keys": (laptop(storage__secretName=""), "secretName"),
    "trial's S3 and another": (laptop(storage__endpoint="https://s3.example.org"), "endpoint"),
    "database for no server": (
        changed(AIRGAPPED, trial={"postgresql": {"enabled": True, "image": "postgres:17.2"}}),
        "mlflow",
    ),
    "something for subcharts": ({**EKS, "global": {"image": "x"}}, "global"),
    # What a real API server refused, of Kubernetes' own rules
    "name with two dots": (eks(mlflow__database__secretName="a..b"), "secretName"),
    "label key with space": (group(nodeSelector={"bad key": "x"}), "nodeSelector"),
    "label value with space": (eks(ray__head__nodeSelector={"a": "x y"}), "nodeSelector"),
    "label of monitoring": (eks(monitoring__labels={"a/b/c": "x"}), "a/b/c"),
    "long label value": (eks(monitoring__labels={"a": 64 * "a"}), "labels"),
    "annotation key with space": (eks(serviceAccount__annotations={"b k": "x"}), "b k"),
    "toleration of any value": (
        group(tolerations=[{"key": "a", "operator": "Exists", "value": "x"}]),
        "value",
    ),
    "toleration without key": (group(tolerations=[{"value": "x"}]), "key"),
    "toleration of no key": (group(tolerations=[{"key": "", "value": "x"}]), "key"),
    "toleration for seconds of a taint that evicts nobody": (
        group(tolerations=[{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 3}]),
        "effect",
    ),
    "toleration for seconds of any effect": (
        group(tolerations=[{"key": "a", "tolerationSeconds": 3}]),
        "effect",
    ),
    "CIDR of four large numbers": (eks(network__dnsCidrs=["999.1.1.1/8"]), "dnsCidrs"),
    "CIDR of more bits than there are": (eks(network__dnsCidrs=["10.0.0.0/33"]), "dnsCidrs"),
    "CIDR of colons": (eks(network__dnsCidrs=["::::/12"]), "dnsCidrs"),
    "queue that is no label": (laptop(kueue__queue=64 * "a"), "queue"),
    "priority class of the system's": (
        eks(priorityClass={"name": "system-x", "create": True}),
        "priorityClass",
    ),
    "path upwards": (laptop(cache__kind="hostPath", cache__hostPath="/mnt/../etc"), "hostPath"),
    "variable that the chart sets": (eks(env={"SHARDS_ROOT": "s3://x"}), "SHARDS_ROOT"),
    "more memory than can be counted": (group(memory="9999999999Gi"), "memory"),
    "more seconds than 32 bits": (job(deadlineSeconds=2**31), "deadlineSeconds"),
    "idle for ever": (laptop(ray__autoscaling__idleSeconds=2**31), "idleSeconds"),
    **{
        f"{name} of more than 32 bits": (group(**{"max": 9, name: 2**31}), name)
        for name in ("min", "max", "gpus", "priority")
    },
    **{
        f"{name} of more than 32 bits": (job(**{name: 2**31}), name)
        for name in ("backoffLimit", "ttlSeconds")
    },
}

# What JSON Schema cannot say, and the templates refuse.
CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "least above most": (group(min=3, max=2), "min 3 is more than max 2"),
    "name twice": (laptop(workers=[GROUP, GROUP]), "two groups have this name"),
    "job twice": (laptop(jobs=[RUN, RUN]), "two jobs have this name"),
    "job on a group that is not there": (job(groups=["gpu"]), "group gpu is none of workers: cpu"),
    "shared memory above memory": (group(sharedMemoryGiB=3), "must be less than memory 3Gi"),
    "head's shared memory above memory": (
        eks(ray__head__sharedMemoryGiB=32),
        "must be less than memory 32Gi",
    ),
    "priority before Ray knew it": (
        eks(ray__version="2.55.1"),
        "spot: KubeRay knows priority from",
    ),
    "S3 on a port that is closed": (
        eks(storage__endpoint="http://10.0.0.5:9000"),
        "storage.endpoint is on port 9000, which network.egress.s3.ports do not have",
    ),
    "S3 without TLS on a port that is closed": (
        eks(storage__endpoint="http://s3.example.org/a:443"),
        "on port 80",
    ),
    "MLflow on a port that is closed": (
        changed(AIRGAPPED, mlflow__externalUri="https://mlflow.example.org:5000"),
        "mlflow.externalUri is on port 5000",
    ),
    "Redis on a port that is closed": (
        eks(ray__gcs={"redisAddress": "rediss://redis:6380", "secretName": "redis"}),
        "ray.gcs.redisAddress is on port 6380",
    ),
    "run with GPUs here and none there": (eks(jobs=[RUN]), "some with GPUs and some without"),
    "run on fallback alone": (eks(jobs=[{**RUN, "groups": ["on-demand"]}]), "all fallback"),
}


@pytest.mark.parametrize(("values", "named"), WRONG.values(), ids=WRONG)
def test_wrong_value_is_refused_and_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(helm.HelmValuesError, match=named):
        render_text(values)


@pytest.mark.parametrize(("values", "told"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_values_that_contradict_are_refused_with_the_numbers(
    values: dict[str, Any], told: str
) -> None:
    with pytest.raises(helm.HelmRenderError, match=told):
        render_text(values)


def merged(below: Any, above: Any) -> Any:
    """As Helm lays a file over the defaults: maps are merged, all else replaced."""
    if isinstance(below, dict) and isinstance(above, dict):
        both = below.keys() | above.keys()
        return {
            k: merged(below.get(k), above[k]) if k in above else copy.deepcopy(below[k])
            for k in both
        }
    return copy.deepcopy(above)


def rules(schema: Any, path: str = "") -> Iterator[tuple[str, int, str]]:
    """(where, the subschema, keyword) of every rule that says yes or no by itself."""
    if not isinstance(schema, dict):
        return
    for keyword, value in schema.items():
        where = f"{path}/{keyword}"
        if keyword in ("if", "description", "not"):
            yield from [(where, id(schema), keyword)] if keyword == "not" else []
        elif keyword in ("properties", "definitions"):
            for name, each in value.items():
                yield from rules(each, f"{where}/{name}")
        elif keyword in ("items", "additionalProperties", "then", "else", "propertyNames"):
            yield from rules(value, where)
        elif keyword in ("allOf", "anyOf"):
            for number, each in enumerate(value):
                yield from rules(each, f"{where}/{number}")
        elif keyword not in ("$schema", "$ref", "title", "type", "required", "const"):
            yield (where, id(schema), keyword)


def refusals(error: jsonschema.ValidationError) -> Iterator[tuple[int, str]]:
    yield id(error.schema), str(error.validator)
    for each in error.context or ():
        yield from refusals(each)


def test_every_rule_refuses_one_of_these_values() -> None:
    validator = jsonschema.Draft7Validator(SCHEMA)
    used = {
        refusal
        for values, _ in WRONG.values()
        for error in validator.iter_errors(merged(DEFAULTS, values))
        for refusal in refusals(error)
    }
    unused = [where for where, *rule in rules(SCHEMA) if tuple(rule) not in used]
    assert not unused


def objects(schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every map of the values whose names are fixed."""
    if "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    if "properties" in schema:
        yield path, schema
        for name, each in schema["properties"].items():
            if isinstance(each, dict):
                yield from objects(each, (*path, name))
    if isinstance(schema.get("items"), dict):
        yield from objects(schema["items"], (*path, "0"))


FULL = merged(DEFAULTS, {**EKS, "jobs": [{**RUN, "groups": ["spot"]}], "global": {}})
PLACES = [path for path, _ in objects(SCHEMA) if path != ("global",)]


@pytest.mark.parametrize("path", PLACES, ids=[".".join(p) or "root" for p in PLACES])
def test_unknown_name_is_refused_in_every_map(path: tuple[str, ...]) -> None:
    values = copy.deepcopy(FULL)
    values["ray"]["head"]["tolerations"] = [{}]
    at: Any = values
    for name in path:
        at = at[int(name)] if name.isdigit() else at.setdefault(name, [{}])
    at["unheardOf"] = 1
    with pytest.raises(helm.HelmValuesError, match="unheardOf"):
        render_text(values)


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict) and value:
        for name, each in value.items():
            yield from leaves(each, (*path, name))
    else:
        yield path


@pytest.mark.parametrize("path", list(leaves(DEFAULTS)), ids=".".join)
def test_value_of_another_type_is_refused(path: tuple[str, ...]) -> None:
    values = copy.deepcopy(FULL)
    at: Any = values
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = {"a": {"b": 1}} if isinstance(at[path[-1]], dict) else {}
    with pytest.raises(helm.HelmValuesError, match=path[-1]):
        render_text(values)


def test_every_value_of_the_schema_has_a_default_and_the_other_way_round() -> None:
    for path, schema in objects(SCHEMA):
        if path == ("global",) or "0" in path or (path[:2] == ("ray", "head") and len(path) > 2):
            continue
        at: Any = DEFAULTS
        for name in path:
            at = at[name]
        assert set(schema["properties"]) - {"global"} == set(at), path
        assert set(schema["required"]) == set(at), path
