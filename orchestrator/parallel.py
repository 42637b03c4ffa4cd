"""The process group's part: gradients, metrics and batch statistics over all workers.

With no process group every function here is the identity, so the loop runs the same alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

from orchestrator.loop import World


def world() -> World:
    """This process among the workers of the default process group, if there is one."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return World()
    return World(
        rank=dist.get_rank(),
        size=dist.get_world_size(),
        wrap=_ddp,
        sum=_sum,
        collective_s=_waits.taken_s,
    )


class _Waits:
    """Adds up the seconds in which this worker only waited for a collective.

    On a CPU they are read off the clock. On a GPU, where the clock sees only the queue, they are
    between events on the stream that has to wait.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def waiting(self, device: torch.device) -> Iterator[None]:
        """What is waited for within counts."""
        if device.type == "cuda":
            before, after = _event(), _event()
            before.record()
            yield
            after.record()
            self._events.append((before, after))
        else:
            started = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - started

    def taken_s(self) -> float:
        """The seconds since the last call; the device must be idle."""
        seconds: float = self._seconds + sum(a.elapsed_time(b) for a, b in self._events) / 1e3
        self._seconds = 0.0
        self._events.clear()
        return seconds


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


_waits = _Waits()


def from_rank_0(value: Any) -> Any:
    """`value` of rank 0, on every rank."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gathered(value: Any) -> list[Any]:
    """The values of all workers, by rank, on every worker."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Waits until every worker is here."""
    if dist.is_initialized():
        dist.barrier()


def largest(value: int) -> int:
    """The largest of all workers' values, on every worker."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    tensor = torch.tensor(value, device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return int(tensor.item())


def _ddp(module: nn.Module) -> DistributedDataParallel:
    # Buffers are batch-norm's running statistics: broadcasting them before every forward would cost
    # a collective and write into a graph that a GAN's two forwards share.
    wrapped = DistributedDataParallel(
        module, forward_sync_buffers=False, gradient_as_bucket_view=True
    )
    # A lambda, because torch reads a hook's annotations, and not when they are text.
    wrapped.register_comm_hook(dist.group.WORLD, lambda group, bucket: _timed_mean(group, bucket))
    return wrapped


def _timed_mean(
    group: dist.ProcessGroup | None, bucket: torch._C._distributed_c10d.GradBucket
) -> torch.futures.Future[Tensor]:
    """DDP's own mean of a bucket. After the last one's gradients there is nothing left to compute:
    what then passes until it is there is waiting."""
    assert group is not None
    if not bucket.is_last():
        return default_hooks.allreduce_hook(group, bucket)
    waiting = _waits.waiting(bucket.buffer().device)
    waiting.__enter__()

    def done(mean: torch.futures.Future[Tensor]) -> Tensor:
        waiting.__exit__(None, None, None)
        return mean.value()

    return default_hooks.allreduce_hook(group, bucket).then(done)


def _sum(tensor: Tensor) -> Tensor:
    dist.all_reduce(tensor)
    return tensor


class _SumOverWorkers(torch.autograd.Function):
    """y = sum over workers of x, and so dx = sum over workers of dy."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        with _waits.waiting(x.device):
            dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, grad: Tensor) -> Tensor:
        total = grad.clone()
        with _waits.waiting(grad.device):
            dist.all_reduce(total)
        return total


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over the global batch (torch's own synchronised one needs CUDA).

    Takes (B, C, ...). In training the mean and variance are over all workers' clips, and gradients
    flow through them across workers; in evaluation it is ordinary batch norm.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (B, C, ...), got {input.dim()} dimensions")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized():
            return super().forward(input)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        shape = [1, -1] + [1] * (input.dim() - 2)
        x = input.float()
        here = torch.full((1,), x.numel() / x.shape[1], device=x.device)
        sums = _SumOverWorkers.apply(torch.cat([x.sum(axes), here]))  # type: ignore[no-untyped-call]
        count, mean = sums[-1], sums[:-1] / sums[-1]
        centred = x - mean.view(shape)
        squares = _SumOverWorkers.apply(centred.square().sum(axes))  # type: ignore[no-untyped-call]
        variance = squares / count
        self._update_running(mean.detach(), variance.detach(), count.detach())
        y: Tensor = centred * torch.rsqrt(variance + self.eps).view(shape)
        assert self.weight is not None
        assert self.bias is not None
        return (y * self.weight.view(shape) + self.bias.view(shape)).to(input.dtype)

    def _update_running(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)


def synchronise_batch_norm(module: nn.Module) -> None:
    """Replaces every batch norm below `module` by the global one; parameters and names stay."""
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            new = GlobalBatchNorm(child.num_features, child.eps, child.momentum)
            new.weight, new.bias = child.weight, child.bias
            new.running_mean, new.running_var = child.running_mean, child.running_var
            new.num_batches_tracked = child.num_batches_tracked
            setattr(module, name, new)
        else:
            synchronise_batch_norm(child)
