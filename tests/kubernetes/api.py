"""The Kubernetes API over HTTP, as little of it as the tests speak, and waiting with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import requests

T = TypeVar("T")
Object = dict[str, Any]
# Where the kinds that the tests touch are found.
GROUPS = {
    "apps/v1": ("deployments", "statefulsets", "replicasets"),
    "batch/v1": ("jobs",),
    "networking.k8s.io/v1": ("networkpolicies", "ingresses"),
    "rbac.authorization.k8s.io/v1": ("roles", "rolebindings"),
    "ray.io/v1": ("rayclusters", "rayjobs"),
    "scheduling.k8s.io/v1": ("priorityclasses",),
}
GROUP = {resource: group for group, resources in GROUPS.items() for resource in resources}


# Forbidden in a namespace that ends, not found, conflict: the object was of a moment ago.
PASSING = (403, 404, 409)


class RefusedError(RuntimeError):
    """The API server says no. status: HTTP's number."""

    def __init__(self, response: requests.Response) -> None:
        super().__init__(f"{response.request.method} {response.url}: {response.text[:700]}")
        self.status = response.status_code


class UnreadyError(RefusedError):
    """The API server cannot answer yet."""


def move_each(move: Callable[[Object], None], objects: list[Object], complaints: set[str]) -> None:
    """Moves each, whatever the others' state; what the server says no to for good is noted."""
    for each in objects:
        try:
            move(each)
        except UnreadyError:
            return
        except RefusedError as error:
            if error.status not in PASSING:
                complaints.add(str(error))


class Api:
    """A client of one API server, as one user."""

    def __init__(self, url: str, *, token: str, authority: Path) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"
        self._session.verify = str(authority)
        self._session.trust_env = False  # no proxy, no netrc

    def is_ready(self) -> bool:
        """Whether the server says so."""
        return self._session.get(f"{self._url}/readyz", timeout=5).text == "ok"

    def list(self, resource: str, *, namespace: str = "", labels: str = "") -> list[Object]:
        """All of a kind, of one namespace or of all."""
        query = {"labelSelector": labels} if labels else {}
        found = self._call("GET", self._path(resource, namespace), params=query)
        items: list[Object] = found["items"]
        return items

    def get(self, resource: str, namespace: str, name: str) -> Object | None:
        """One, or None."""
        try:
            return self._call("GET", f"{self._path(resource, namespace)}/{name}")
        except RefusedError as error:
            if error.status == 404:
                return None
            raise

    def create(self, resource: str, namespace: str, body: Object, *, of: str = "") -> Object:
        """Makes one. of: the object whose sub-resource this is, as `NAME/binding`."""
        path = self._path(resource, namespace)
        return self._call("POST", f"{path}/{of}" if of else path, json=body)

    def patch(self, resource: str, namespace: str, name: str, change: Object) -> Object:
        """Merges a change; name may end in `/status`."""
        headers = {"Content-Type": "application/merge-patch+json"}
        path = f"{self._path(resource, namespace)}/{name}"
        return self._call("PATCH", path, json=change, headers=headers)

    def delete(self, resource: str, namespace: str, name: str, **options: Any) -> None:
        """Deletes one, which may be gone already."""
        try:
            self._call("DELETE", f"{self._path(resource, namespace)}/{name}", json=options)
        except RefusedError as error:
            if error.status != 404:
                raise

    def _path(self, resource: str, namespace: str) -> str:
        group = GROUP.get(resource)
        root = f"/apis/{group}" if group else "/api/v1"
        return f"{root}/namespaces/{namespace}/{resource}" if namespace else f"{root}/{resource}"

    def _call(self, method: str, path: str, **how: Any) -> Object:
        response = self._session.request(method, self._url + path, timeout=30, **how)
        if not response.ok:
            raise (UnreadyError if response.status_code >= 500 else RefusedError)(response)
        answer: Object = response.json()
        return answer


def until(
    asked: Callable[[], T],
    what: str,
    *,
    seconds: float = 30,
    otherwise: Callable[[], str] = str,
) -> T:
    """Asks until the answer is true, and returns it; fails with `otherwise()` when time is up."""
    deadline = time.monotonic() + seconds
    while not (answer := asked()):
        assert time.monotonic() < deadline, f"{what}: not in {seconds} s. {otherwise()}"
        time.sleep(0.05)
    return answer
