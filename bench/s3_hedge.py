"""S3 reads with and without hedging when 1 % of requests are 5 s late: `python bench/s3_hedge.py`.

A moto server on loopback stands in for S3 and delays every hundredth ranged GET. Reports clips per
second and the time a batch took (median, 99th percentile, worst). Options: --steps N, --delay-s S.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import boto3
import numpy as np
from reader import make

import shards.hedge
from shards.read import Reader, Slice, open_dataset
from shards.s3 import S3Store

RESULT = Path(__file__).parent / "results" / "s3_hedge.json"
BATCH, THREADS = 16, 16


def relay(target: tuple[str, int], late: Callable[[], float]) -> int:
    """A TCP relay to `target` that holds a ranged GET for `late()` seconds; its port."""
    server = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, sink: socket.socket, *, requests: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                if requests and data.startswith(b"GET ") and b"range:" in data.lower():
                    time.sleep(late())
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        while True:
            down, _ = server.accept()
            try:
                up = socket.create_connection(target)
            except OSError:  # the bench is over, a late request is not
                down.close()
                continue
            for source, sink, requests in ((down, up, True), (up, down, False)):
                threading.Thread(
                    target=pump, args=(source, sink), kwargs={"requests": requests}, daemon=True
                ).start()

    threading.Thread(target=serve, daemon=True).start()
    return int(server.getsockname()[1])


def start_moto() -> tuple[subprocess.Popen[bytes], int]:
    """A server in a process of its own, so that it does not share our interpreter's lock."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return process, port
        time.sleep(0.1)
    process.kill()
    raise RuntimeError("moto did not start within 30 s")


def measure(steps: int) -> dict[str, float]:
    """Reads batches one after the other, without prefetching, so that each shows its own tail."""
    dataset = open_dataset("s3://bench/set")
    part = Slice(rank=0, world_size=1, global_batch=BATCH)
    reader = Reader(dataset, seed=0, slice=part, prefetch_mib=0, threads=THREADS)
    batches = reader.batches(0)
    next(batches)
    seconds = []
    for _ in range(steps):
        begin = time.perf_counter()
        next(batches)
        seconds.append(time.perf_counter() - begin)
    batches.close()
    assert isinstance(dataset.store, S3Store)
    p50, p99 = np.percentile(seconds, [50, 99])
    return {
        "clips_per_s": BATCH * steps / sum(seconds),
        "batch_p50_s": float(p50),
        "batch_p99_s": float(p99),
        "batch_worst_s": max(seconds),
        **dataset.store.hedge_counts(),
    }


def main() -> None:
    """Three runs: no request late; late ones without, and with a second request."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--delay-s", type=float, default=5.0)
    given = parser.parse_args()
    server, port = start_moto()
    late_s = [0.0]
    count = itertools.count(1)
    lock = threading.Lock()

    def late() -> float:
        with lock:
            return late_s[0] if next(count) % 100 == 0 else 0.0

    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{relay(('127.0.0.1', port), late)}",
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), "jpg", 800)
            boto3.client("s3").create_bucket(Bucket="bench")
            store = S3Store("s3://bench/set")
            for path in Path(folder).rglob("*.*"):
                store.upload(path.relative_to(folder).as_posix(), path)
        table = {"no request late": measure(given.steps)}
        late_s[0] = given.delay_s
        as_it_is = shards.hedge.Hedge.delay
        shards.hedge.Hedge.delay = lambda *_: 1e6  # type: ignore[method-assign]
        table["1 % late, not hedged"] = measure(given.steps)
        shards.hedge.Hedge.delay = as_it_is  # type: ignore[method-assign]
        table["1 % late, hedged"] = measure(given.steps)
    finally:
        server.kill()
        server.wait()
    for name, figures in table.items():
        print(f"{name:<22}" + "  ".join(f"{key} {value:.3g}" for key, value in figures.items()))
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
