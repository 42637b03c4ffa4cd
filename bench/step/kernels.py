"""What a step's time goes to on a device, kernel by kernel, and the device's two ceilings."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

# The first that fits names a kernel's kind; names are CUDA's, cuDNN's, ATen's or Triton's.
KINDS = {
    "batch norm": r"batch_?norm|bn_(fw|bw)|_bn_",
    "optimiser": r"adam|multi_tensor",
    "copies": r"memcpy|memset|copy|transpose|nchwtonhwc|nhwctonchw|convert",
    "convolutions": r"conv|gemm|xmma|cutlass|wgrad|dgrad|fprop|nvjet|cudnn|cublas",
    "fused by torch.compile": r"triton",
    "pointwise and sums": r"elementwise|reduce|relu|tanh|sigmoid|aten::",
}
_SYNCS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def explain(window: Callable[[], Any], steps: int, device: torch.device) -> dict[str, Any]:
    """Profiles one window of `steps` steps.

    by_kind: share of the device's busy time; top: kernels as (name, share, calls a step);
    idle: share of the wall time in which the device had nothing to do; syncs_per_step: waits of the
    program for the device. lines: all of it for people.
    """
    gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * gpu
    with profile(activities=activities) as profiler:
        started = time.perf_counter()
        window()
        wall_s = time.perf_counter() - started
    averages = profiler.key_averages()
    spent = {
        each.key: (each.self_device_time_total if gpu else each.self_cpu_time_total, each.count)
        for each in averages
        if each.device_type.name == ("CUDA" if gpu else "CPU") and not each.is_user_annotation
    }
    busy_us = sum(us for us, _ in spent.values())
    ranked = sorted(spent.items(), key=lambda item: -item[1][0])[:10]
    found: dict[str, Any] = {
        "by_kind": _by_kind({name: us / busy_us for name, (us, _) in spent.items()}),
        "top": [(name, us / busy_us, count / steps) for name, (us, count) in ranked],
        "idle": max(0.0, 1 - busy_us / 1e6 / wall_s),
        "syncs_per_step": sum(each.count for each in averages if each.key in _SYNCS) / steps,
    }
    return found | {"lines": _lines(found)}


def _by_kind(shares: dict[str, float]) -> dict[str, float]:
    """Shares by kernel name summed by kind, the largest first."""
    kinds: dict[str, float] = {}
    for name, share in shares.items():
        fits = (kind for kind, pattern in KINDS.items() if re.search(pattern, name.lower()))
        kind = next(fits, "other")
        kinds[kind] = kinds.get(kind, 0.0) + share
    return dict(sorted(kinds.items(), key=lambda item: -item[1]))


def _lines(found: dict[str, Any]) -> list[str]:
    kinds = ", ".join(f"{name} {share:.1%}" for name, share in found["by_kind"].items())
    return [
        *(f"  {share:6.1%}  {n:6.1f} a step  {name[:80]}" for name, share, n in found["top"]),
        f"by kind: {kinds}",
        f"device idle {found['idle']:.1%} of the wall time, "
        f"{found['syncs_per_step']:.2f} waits for it a step",
    ]


def ceilings(device: torch.device) -> dict[str, float]:
    """What the device really does: TFLOP/s of a square matrix product, GB/s of a copy."""
    gpu = device.type == "cuda"
    side, repeats = (8192, 20) if gpu else (512, 2)
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    out: dict[str, float] = {}
    for name, tf32, dtype in (
        ("fp32", False, torch.float32),
        ("tf32", True, torch.float32),
        ("bf16", True, torch.bfloat16),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        seconds = _seconds(partial(torch.mm, a.to(dtype), b.to(dtype)), repeats, gpu)
        out[f"{name}_tflops"] = 2 * side**3 / seconds / 1e12
    seconds = _seconds(partial(torch.empty_like(a).copy_, a), repeats, gpu)
    out["copy_gb_per_s"] = 2 * a.nbytes / seconds / 1e9
    return out


def _seconds(work: Callable[[], Any], repeats: int, gpu: bool) -> float:
    """Of one call, warm."""
    work()
    if gpu:
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        work()
    if gpu:
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / repeats
