"""What is not here as it was when a run was made: how grave it is, and what it may change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from orchestrator import provenance
from orchestrator.config import Experiment, flat, identity
from orchestrator.provided import provide
from orchestrator.record import Record
from orchestrator.site import Site
from shards.read import open_dataset

Importance = Literal["refuses", "warns", "notes"]
_MAY_CHANGE = {  # packages by what another version of them may do
    "torch": "other kernels round differently: the curves may leave each other from the first step",
    "numpy": "what is computed of clips before training",
    **dict.fromkeys(("av", "simplejpeg", "pillow"), "decoded pixels, by a level or so"),
    "scikit-learn": "mixtures that are fitted, and the digits of generated data",
}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Something that is not here as it was. effect: what it may change, and what to do."""

    what: str
    then: str
    now: str
    importance: Importance
    effect: str


def differences(
    record: Record, experiment: Experiment, version: str, missing: str
) -> list[Difference]:
    """What is not here as it was, the gravest first.

    version: of the dataset here; "" where there is none, and `missing` says why.
    """
    found = [
        *_data(record, version, missing),
        *_fields(record, experiment),
        *_code(record),
        *_machines(record, experiment),
        *_packages(record),
    ]
    if record.status != "FINISHED":
        effect = "the curves are compared as far as it came"
        found.append(_other("status", record.status, "-", "warns", effect))
    order = ("refuses", "warns", "notes")
    return sorted(found, key=lambda each: order.index(each.importance))


def _other(what: str, then: str, now: str, importance: Importance, effect: str) -> Difference:
    return Difference(what=what, then=then, now=now, importance=importance, effect=effect)


def version_here(experiment: Experiment, site: Site) -> tuple[str, str]:
    data = experiment.data
    provide(data.name, site)
    try:
        return open_dataset(site.dataset(data.name), data.fraction).version, ""
    except (OSError, ValueError) as error:
        return "", str(error)


def _data(record: Record, version: str, missing: str) -> list[Difference]:
    name, then, place = record.data
    if version == then:
        return []
    what = f"dataset {name}"
    if not version:
        effect = f"{missing}; it was at {place} then: copy it to SHARDS_ROOT, or ingest it again"
        return [_other(what, then[:12], "missing", "refuses", effect)]
    effect = f"other clips: another run. It was at {place} then; SHARDS_ROOT says where it is now"
    return [_other(what, then[:12], version[:12], "refuses", effect)]


def _fields(record: Record, experiment: Experiment) -> list[Difference]:
    """Fields that came since, and take this version's registered values."""
    known = flat(record.experiment)
    effect = "a field that came since: check that this value is what was done then"
    return [
        _other(path, "-", str(value), "warns", effect)
        for path, value in flat(identity(experiment)).items()
        if path not in known
    ]


def _code(record: Record) -> list[Difference]:
    digest, commit = provenance.code_digest(), provenance.git_commit()
    if list(record.codes) == [digest]:
        if commit in record.codes.values():
            return []
        then = record.codes[digest]
        return [_other("commit", then, commit, "notes", "nothing: our packages' text is the same")]
    found = []
    for then_digest, then in record.codes.items():
        if then_digest == digest:
            continue
        clean = then.removesuffix("+dirty")
        effect = f"numerics may have changed; `git checkout {clean}` has its code"
        if then_digest in record.diffs:
            effect += f", with the artifact {provenance.diff_name(then_digest)} (`git apply`)"
        elif then.endswith("+dirty"):
            effect += ", but not what was changed in it: MLflow keeps no diff"
        found.append(_other("commit", then, commit, "warns", effect))
    if len(record.codes) > 1:
        effect = "it was resumed under another version: no one version does what it did"
        found.append(_other("versions of the code", str(len(record.codes)), "1", "warns", effect))
    return found


def _machines(record: Record, experiment: Experiment) -> list[Difference]:
    found = []
    gpu = experiment.resources.use_gpu
    cuda = torch.device("cuda") if torch.cuda.is_available() else None
    device = torch.device("cpu") if not gpu else cuda
    now = "unknown until it runs" if device is None else provenance.device_name(device)
    if record.device is not None and record.device != now:
        effect = "other kernels and other precision: the same within a tolerance at best"
        found.append(_other("device", record.device, now, "warns", effect))
    workers = str(experiment.resources.num_workers)
    if record.workers is not None and str(record.workers) != workers:
        effect = "gradients are summed in another order"
        if not experiment.resources.sync_batch_norm:
            effect += ", and batch statistics are of other slices: the curves will differ"
        found.append(_other("workers", str(record.workers), workers, "warns", effect))
    return found


def _packages(record: Record) -> list[Difference]:
    here = provenance.packages()
    changed = {
        name: (then, here.get(name, "missing"))
        for name, then in record.packages.items()
        if here.get(name, "missing").partition("+")[0] != then.partition("+")[0]
    }
    found = [
        _other(name, *changed.pop(name), "warns", effect)
        for name, effect in _MAY_CHANGE.items()
        if name in changed
    ]
    if changed:
        listed = ", ".join(f"{name} {then} -> {now}" for name, (then, now) in changed.items())
        count = f"{len(changed)} other packages"
        found.append(_other(count, "-", "-", "notes", f"nothing that is known: {listed}"))
    return found
