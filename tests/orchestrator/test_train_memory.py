"""Kept memory is told by the kernel: pages that were given back fault when they are used again."""

import os
import platform
import subprocess
import sys

import pytest

from orchestrator.train import KEEP_FREED_MEMORY

# Eight blocks of 48 MiB, all alive at once and then all freed, as a step's activations are, and in
# a thread, as Ray Train has its workers train. Left to itself malloc learns to keep blocks of up to
# 32 MiB and gives back every larger one. The heap settles within three steps: four go by first.
PROGRAM = """
import resource, threading
import torch

def step():
    return [torch.ones(12 * 2**20) for _ in range(8)]

def work():
    for _ in range(4):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def faults(environment: dict[str, str]) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | environment,
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's malloc that is told")
def test_worker_environment_leaves_no_page_of_a_step_to_fault_again():
    plain, kept = faults({}), faults(KEEP_FREED_MEMORY)
    assert plain > 4 * 8 * 16  # every block in each of four steps, in pages of at most 3 MiB
    assert kept < plain / 30
