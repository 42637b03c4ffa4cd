"""An experiment as a frozen value, and its identity.

`Experiment` nests one frozen dataclass a concern; `overrides.override` returns a changed copy.
`run_name` hashes what can change the result, so that equal experiments on equal data are the same
run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from models.bouncing_reader import BouncingReaderConfig
from models.clip_classifier import ClipClassifierConfig
from models.deep_rotator import DeepRotatorConfig
from models.mocogan import MocoganConfig
from models.sync_draw import SyncDrawConfig
from models.vgan import VganConfig
from models.vgan_autoencoder import VganAutoencoderConfig
from models.vgan_classifier import VganClassifierConfig
from models.vgan_future import VganFutureConfig
from models.video_vae import VideoVaeConfig

ModelConfig = (
    VganConfig
    | VganAutoencoderConfig
    | VganFutureConfig
    | VganClassifierConfig
    | SyncDrawConfig
    | BouncingReaderConfig
    | VideoVaeConfig
    | MocoganConfig
    | DeepRotatorConfig
    | ClipClassifierConfig
)


def free(default: Any) -> Any:
    """A field that cannot change what a run computes, and so is no part of its identity."""
    return field(default=default, metadata={"identity": False})


def require(good: bool, name: str, value: object, valid: str) -> None:
    """Raises ValueError naming the field, its value and what is valid, unless `good`."""
    if not good:
        raise ValueError(f"{name}={value!r}: must be {valid}")


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How many workers train: `minimum` to `maximum`, written `4` or `2..8`."""

    minimum: int
    maximum: int

    def __post_init__(self) -> None:
        require(1 <= self.minimum <= self.maximum, "num_workers", str(self), "N or MIN..MAX, >= 1")

    @classmethod
    def parse(cls, text: str) -> Workers:
        """Reads `4` or `2..8`. Raises ValueError for anything else."""
        low, dots, high = text.partition("..")
        try:
            return cls(minimum=int(low), maximum=int(high if dots else low))
        except ValueError:
            raise ValueError(f"num_workers={text!r}: must be N or MIN..MAX, >= 1") from None

    def __str__(self) -> str:
        fixed = self.minimum == self.maximum
        return str(self.minimum) if fixed else f"{self.minimum}..{self.maximum}"


ONE_WORKER = Workers(minimum=1, maximum=1)


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which clips, in which order, and how they reach a worker.

    fraction: the share of the dataset that is used, in (0, 1]: the first of every shard's clips.
    Clips lie in a shard by their source's name, so it is about that share of the sources.
    global_batch: clips a step, over all workers together.
    block_shards: shards whose samples are mixed at a time; None mixes the whole dataset.
    ledger: writes every consumed sample key to the run's `ledger/`.
    cache_gib: what the node's shard cache may hold; None keeps none. cache_pixels: keeps decoded
    clips in it, several times the size, instead of shards as they are.
    prefetch_mib: decoded batches kept ready; None for 64 from files and 256 from S3.
    """

    name: str
    fraction: float = 1.0
    global_batch: int = 64
    block_shards: int | None = 32
    ledger: bool = free(False)
    cache_gib: float | None = free(None)
    cache_pixels: bool = free(False)
    prefetch_mib: int | None = free(None)
    reader_threads: int = free(2)

    def __post_init__(self) -> None:
        require(bool(self.name) and "/" not in self.name, "data.name", self.name, "a folder name")
        require(0 < self.fraction <= 1, "data.fraction", self.fraction, "in (0, 1]")
        require(self.global_batch >= 1, "data.global_batch", self.global_batch, "at least 1")
        block = self.block_shards
        require(block is None or block >= 1, "data.block_shards", block, "none or at least 1")
        cache = self.cache_gib
        require(cache is None or cache > 0, "data.cache_gib", cache, "none or greater than 0")
        ahead = self.prefetch_mib
        require(ahead is None or ahead >= 1, "data.prefetch_mib", ahead, "none or at least 1")
        require(self.reader_threads >= 1, "data.reader_threads", self.reader_threads, "at least 1")


@dataclass(frozen=True, kw_only=True)
class Optim:
    """Adam, one for every phase of the learner (VGAN section 2.4: lr 2e-4, momentum term 0.5).

    clip_norm: each parameter's gradient is scaled down to at most this norm; none for no limit.
    weight_decay: times each weight is added to its gradient.
    """

    lr: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999
    eps: float = 1e-8
    clip_norm: float | None = None
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "0 or more")
        limit = self.clip_norm
        require(limit is None or limit > 0, "optim.clip_norm", limit, "none or greater than 0")
        require(self.lr > 0, "optim.lr", self.lr, "greater than 0")
        require(0 <= self.beta1 < 1, "optim.beta1", self.beta1, "in [0, 1)")
        require(0 <= self.beta2 < 1, "optim.beta2", self.beta2, "in [0, 1)")
        require(self.eps > 0, "optim.eps", self.eps, "greater than 0")


Precision = Literal["fp32", "tf32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How a step is computed.

    precision: of convolutions and matrix products. tf32 rounds their inputs to 10 bits of mantissa;
    bf16 is autocast, weights stay fp32; auto is bf16 on a GPU and fp32 on a CPU.
    accumulate: parts that a worker's slice of a step is taken in, one after the other, so that
    memory is for one part; each is normalised by its own batch statistics.
    channels_last: the memory format of clips and of 3-d convolutions' weights; none: on a GPU.
    compile: torch.compile of the trained networks.
    """

    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    accumulate: int = 1
    channels_last: bool | None = free(None)
    compile: bool = free(False)

    def __post_init__(self) -> None:
        require(self.accumulate >= 1, "compute.accumulate", self.accumulate, "at least 1")

    def on(self, device: str) -> tuple[Precision, bool]:
        """(precision, channels last) on a device type, `cuda` or `cpu`."""
        gpu = device == "cuda"
        precision = self.precision
        return (
            ("bf16" if gpu else "fp32") if precision == "auto" else precision,
            gpu if self.channels_last is None else self.channels_last,
        )


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long, and how often something is written. All in steps.

    samples: clips in a sample grid, drawn from noise that stays the same over the run.
    keep_checkpoints: the newest that stay. best_metric: a metric of the model, as in g_loss, by
    which one more stays: the one of the lowest value, or the highest with best_is=highest.
    """

    steps: int
    checkpoint_every: int = free(500)
    samples_every: int = free(500)
    log_every: int = free(10)
    samples: int = free(16)
    keep_checkpoints: int = free(3)
    best_metric: str | None = free(None)
    best_is: Literal["lowest", "highest"] = free("lowest")

    def __post_init__(self) -> None:
        for name in ("steps", "checkpoint_every", "samples_every", "log_every", "samples"):
            require(getattr(self, name) >= 1, f"budget.{name}", getattr(self, name), "at least 1")
        require(
            self.keep_checkpoints >= 2, "budget.keep_checkpoints", self.keep_checkpoints, ">= 2"
        )


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a run asks of the cluster.

    num_workers: a range makes the run elastic; the global batch and the order stay.
    threads: of torch, in each worker. At one world size, on CPU, equal threads give equal bits.
    max_failures: worker failures survived before the run fails; preemptions are not counted.
    max_rollbacks: times that a loss which is not finite, or explodes, goes back to the last
    checkpoint with half the learning rate. explosion: a loss explodes beyond so many times the
    largest of the 20 logged before it (and of 1); none: never. hang_timeout_s: a worker in which
    no step ends for so long is started again.
    sync_batch_norm: batch statistics of the global batch, so that the world size does not matter.
    """

    num_workers: Workers = free(ONE_WORKER)  # noqa: RUF009 - `free` makes a field
    use_gpu: bool = free(True)
    cpus_per_worker: int = free(4)
    threads: int = free(4)
    max_failures: int = free(8)
    max_rollbacks: int = free(3)
    explosion: float | None = free(1000.0)
    hang_timeout_s: int | None = free(600)
    sync_batch_norm: bool = False

    def __post_init__(self) -> None:
        for name in ("cpus_per_worker", "threads"):
            value = getattr(self, name)
            require(value >= 1, f"resources.{name}", value, "at least 1")
        for name in ("max_failures", "max_rollbacks"):
            require(getattr(self, name) >= 0, f"resources.{name}", getattr(self, name), ">= 0")
        limit = self.explosion
        require(limit is None or limit > 1, "resources.explosion", limit, "none or more than 1")
        hang = self.hang_timeout_s
        require(hang is None or hang >= 1, "resources.hang_timeout_s", hang, "none or at least 1")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that decides a run: model, data, optimiser, compute, budget, resources, seed.

    init_from: the name of a finished run whose weights the model begins with, where it can use
    them; none for random ones.
    """

    name: str
    paper: str = free("")
    model: ModelConfig
    init_from: str | None = None
    data: Data
    optim: Optim = Optim()
    compute: Compute = Compute()
    budget: Budget
    resources: Resources = Resources()
    seed: int = 0

    given: ClassVar[frozenset[str]] = frozenset({"name", "paper"})  # not to be overridden

    def __post_init__(self) -> None:
        low, high = 0, 2**31 - 1
        require(low <= self.seed <= high, "seed", self.seed, f"in [{low}, {high}]")
        most = self.resources.num_workers.maximum
        require(
            most <= self.data.global_batch,
            "resources.num_workers",
            str(self.resources.num_workers),
            f"at most data.global_batch ({self.data.global_batch}): a worker needs a clip a step",
        )


def plain(value: Any) -> Any:
    """A config as JSON-able data: dataclasses become dicts, worker ranges their text."""
    if isinstance(value, Workers):
        return str(value)
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """`plain(value)` as one level of dotted paths."""
    out: dict[str, Any] = {}
    for name, item in plain(value).items():
        path = f"{prefix}.{name}" if prefix else name
        out |= flat(item, path) if isinstance(item, dict) else {path: item}
    return out


def run_name(experiment: Experiment, dataset_version: str) -> str:
    """`<experiment>-<hash8>`: the resolved experiment, less what cannot change its result."""
    text = json.dumps([identity(experiment), dataset_version], sort_keys=True)
    return f"{experiment.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def identity(value: Any) -> Any:
    """The JSON-able part of a config that can change a run's result."""
    if not dataclasses.is_dataclass(value):
        return value
    fields = (f for f in dataclasses.fields(value) if f.metadata.get("identity", True))
    return {f.name: identity(getattr(value, f.name)) for f in fields}
