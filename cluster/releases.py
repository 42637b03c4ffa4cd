"""An installation of the chart: what helm and kubectl are called with for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# Helm 4 applies on the server by default, where a list of worker groups has one owner: from the
# autoscaler's first change of `replicas` on, every upgrade would be refused as a conflict.
CLIENT_SIDE = "--server-side=false"
CHART = Path(__file__).parent.parent / "helm" / "orchestrator"


@dataclass(frozen=True, kw_only=True)
class Release:
    """An installation of the chart. values: files, the later ones win."""

    name: str
    namespace: str
    chart: str
    values: tuple[str, ...] = ()

    def template(self, *more: str) -> list[str]:
        """Renders, and sends nothing. more: further files of values."""
        return ["helm", "template", *self._chart(*more)]

    def install(self) -> list[list[str]]:
        """Asks whether KubeRay is there, whether the values are right, which Helm this is, and
        installs or upgrades; Helm 4 with CLIENT_SIDE besides."""
        return [
            ["kubectl", "api-resources", "--api-group=ray.io", "--output=name"],
            self.template(),
            ["helm", "version", "--short"],
            [
                *("helm", "upgrade", "--install", *self._chart()),
                *("--create-namespace", "--wait", "--timeout=10m"),
            ],
        ]

    def show(self) -> list[list[str]]:
        """Tells what is installed and what runs."""
        kinds = "rayclusters,rayjobs,deployments,statefulsets,pods"
        return [
            ["helm", "status", self.name, f"--namespace={self.namespace}"],
            ["kubectl", "get", kinds, *self._mine()],
        ]

    def remove(self) -> list[list[str]]:
        """Ends every job, then everything else; Secrets, volumes and buckets stay."""
        return [
            ["helm", "status", self.name, f"--namespace={self.namespace}", "--output=json"],
            # Jobs of hooks that failed are not of the release, and stay.
            ["kubectl", "delete", "rayjobs.ray.io,jobs.batch", *self._mine()],
            ["helm", "uninstall", self.name, f"--namespace={self.namespace}", "--wait"],
        ]

    def given(self) -> list[str]:
        """Prints the values that it was installed with."""
        return [
            *("helm", "get", "values", self.name),
            *(f"--namespace={self.namespace}", "--output=json"),
        ]

    def _chart(self, *more: str) -> list[str]:
        files = [f"--values={path}" for path in (*self.values, *more)]
        return [self.name, self.chart, f"--namespace={self.namespace}", *files]

    def _mine(self) -> list[str]:
        selector = f"app.kubernetes.io/instance={self.name}"
        return [f"--namespace={self.namespace}", f"--selector={selector}"]
