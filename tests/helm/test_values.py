"""Values at the edge of what Kubernetes takes are rendered as it takes them."""

from typing import Any

import pytest

from tests.helm.manifests import changed, example, only, pods, render

pytest.importorskip("helm_python", reason="no wheel for this machine: rendering needs Linux x86_64")
EKS, LAPTOP = example("eks-spot-64gpu"), example("laptop-kind")


CIDRS = ["169.254.20.10/32", "0.0.0.0/0", "::/0", "fd00::/8", "::1/128", "::ffff:0:0/96"]
CIDRS += ["2001:db8:0:1:2:3:4:5/64", "2001:db8::/32", "1:2:3:4:5:6:7::/112"]


def group(**changes: Any) -> dict[str, Any]:
    return changed(LAPTOP, workers=[{**LAPTOP["workers"][0], **changes}])


RIGHT: dict[str, dict[str, Any]] = {
    "addresses of both kinds": changed(EKS, network__dnsCidrs=CIDRS),
    "labels with domains": group(
        nodeSelector={"cloud.google.com/gke-accelerator": "nvidia-h100-80gb", "a": "", "B_c.d": "E"}
    ),
    "annotation of any text": changed(EKS, serviceAccount__annotations={"a.b/c": "arn:aws: x"}),
    "every taint": group(tolerations=[{"operator": "Exists"}]),
    "a taint by its value": group(tolerations=[{"key": "a", "value": "b", "effect": "NoExecute"}]),
    "a taint for a while": group(
        tolerations=[
            {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 9}
        ]
    ),
    "the system's class, which is there": changed(
        EKS, priorityClass={"name": "system-x", "create": False}
    ),
    "a name of many parts": changed(EKS, mlflow__database__secretName="a-b.c0.d"),
}


@pytest.mark.parametrize("values", RIGHT.values(), ids=RIGHT)
def test_value_that_kubernetes_takes_is_rendered(values: dict[str, Any]) -> None:
    assert render(values)


def test_large_numbers_are_written_in_digits() -> None:
    values = changed(LAPTOP, cache__sizeGiB=1_000_000, trial__s3__sizeGiB=2_000_000)
    (pod,) = [pod for where, pod in pods(render(values)) if where.endswith(" cpu")]
    assert {"name": "cache", "emptyDir": {"sizeLimit": "1000000Gi"}} in pod["spec"]["volumes"]
    (claim,) = only(render(values), "StatefulSet", "-s3")["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "2000000Gi"
