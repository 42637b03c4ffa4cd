"""The nodes of a cluster compared with each other: checks that are functions of their facts."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.preflight import Finding

MOST_SKEW_S = 2.0
LEAST_SHM = 256 << 20
FULL = 0.95  # Ray stops storing objects on a disk fuller than this


@dataclass(frozen=True, kw_only=True)
class Node:
    """What one node says of itself.

    versions: of Python, Ray, torch and our code (a hash of its text). disk_used: share of the disk
    of Ray's files. shm_bytes: size of /dev/shm. gpus: that the driver sees; advertised_gpus: that
    Ray schedules. clock_ahead_s: against this machine's clock, uncertain by `clock_within_s`.
    error: why nothing could be asked; the rest is empty then. late: it may be busy and no more.
    """

    name: str
    versions: dict[str, str]
    disk_used: float = 0.0
    shm_bytes: int = 0
    gpus: int = 0
    advertised_gpus: int = 0
    clock_ahead_s: float = 0.0
    clock_within_s: float = 0.0
    error: str = ""
    late: bool = False


def all_answer(nodes: list[Node]) -> Finding | None:
    """Whether every node runs our code. Those that are late have not said that they do not."""
    silent = [node for node in nodes if node.error and not node.late]
    late = [node for node in nodes if node.late]
    if silent:
        return Finding(
            problem=f"{len(silent)} of {len(nodes)} nodes cannot run this project",
            evidence="; ".join(f"{node.name}: {node.error}" for node in silent[:3]),
            remedy="Install the same environment or image on all of them, or take them out",
        )
    if late:
        return Finding(
            problem=f"{len(late)} of {len(nodes)} nodes did not answer in time",
            evidence="; ".join(f"{node.name}: {node.error}" for node in late[:3]),
            remedy="They are busy, or cut off; look at those that stay silent",
            fatal=False,
        )
    return None


def versions_equal(nodes: list[Node]) -> Finding | None:
    """Whether Python, Ray, torch and our code are the same everywhere."""
    answered = [node for node in nodes if not node.error]
    different = []
    for what in answered[0].versions if answered else ():
        by_version: dict[str, list[str]] = {}
        for node in answered:
            by_version.setdefault(node.versions[what], []).append(node.name)
        if len(by_version) > 1:
            listed = ", ".join(f"{v} on {', '.join(n[:3])}" for v, n in by_version.items())
            different.append(f"{what}: {listed}")
    if not different:
        return None
    return Finding(
        problem="nodes run different versions",
        evidence="; ".join(different),
        remedy="Install the same environment or image on all nodes",
    )


def clocks_agree(nodes: list[Node], *, most_s: float = MOST_SKEW_S) -> Finding | None:
    """Whether every clock is surely within `most_s` of this machine's."""
    wrong = [n for n in nodes if abs(n.clock_ahead_s) - n.clock_within_s > most_s]
    if not wrong:
        return None
    return Finding(
        problem="clocks differ",
        evidence="; ".join(f"{n.name} is {n.clock_ahead_s:+.1f} s off" for n in wrong[:3]),
        remedy="Run chrony or ntpd on the nodes: metrics' times mislead, and S3 refuses requests "
        "that are 15 minutes off",
        fatal=False,
    )


def disks_have_room(nodes: list[Node]) -> Finding | None:
    """Whether Ray may still write to every node's disk."""
    full = [node for node in nodes if node.disk_used > FULL]
    if not full:
        return None
    return Finding(
        problem="disks are too full for Ray",
        evidence="; ".join(f"{n.name}: {n.disk_used:.1%} used" for n in full[:3]),
        remedy=f"Free some: Ray stops storing objects beyond {FULL:.0%} of RAY_TMPDIR's disk",
        fatal=False,
    )


def shared_memory_fits(nodes: list[Node]) -> Finding | None:
    """Whether /dev/shm is larger than a container's default."""
    small = [node for node in nodes if not node.error and node.shm_bytes < LEAST_SHM]
    if not small:
        return None
    return Finding(
        problem="/dev/shm is small",
        evidence="; ".join(f"{n.name}: {n.shm_bytes / 2**20:.0f} MiB" for n in small[:3]),
        remedy="Ray and NCCL keep buffers there: run containers with --shm-size, pods with an "
        f"emptyDir of medium Memory at /dev/shm, {LEAST_SHM >> 20} MiB or more",
        fatal=False,
    )


def gpus_visible(nodes: list[Node], *, least: int) -> Finding | None:
    """Whether the GPUs that Ray schedules exist, and there are `least` of them."""
    missing = [node for node in nodes if not node.error and node.gpus < node.advertised_gpus]
    if missing:
        return Finding(
            problem="nodes offer GPUs that their driver does not see",
            evidence="; ".join(f"{n.name}: {n.gpus} of {n.advertised_gpus}" for n in missing[:3]),
            remedy="Look at nvidia-smi there; in a container, is the NVIDIA runtime used?",
        )
    offered = sum(node.advertised_gpus for node in nodes)
    if offered >= least:
        return None
    return Finding(
        problem=f"{least} worker(s) need a GPU each, the cluster offers {offered} now",
        evidence=f"{len(nodes)} node(s) are up",
        remedy="The run waits until they come: add GPU nodes, lower resources.num_workers, or set "
        "resources.use_gpu=false",
        fatal=False,
    )
