"""Every way to lose a part of a run, at a moment that a seed decides; the proof is the same.

The ledger of consumed keys is that of the uninterrupted run, and at one world size on CPU the
weights are its weights, bit for bit. `FAULT_SEEDS=20` runs 20 moments of each.
"""

import os
import signal
import time

import pytest

SEEDS = range(int(os.environ.get("FAULT_SEEDS", "1")))
pytestmark = [pytest.mark.timeout(400), pytest.mark.parametrize("seed", SEEDS)]


def test_worker_killed(run, uninterrupted, seed):
    broken = run().start()
    broken.wait_for_a_random_checkpoint(seed)
    for worker in broken.workers():
        worker.send_signal(signal.SIGKILL)
    outcome = broken.finish()
    assert len(outcome.attempts) == 2
    outcome.assert_same(uninterrupted)


def test_driver_killed_and_the_same_command_again(run, uninterrupted, seed):
    broken = run().start()
    broken.wait_for_a_random_checkpoint(seed)
    broken.kill_driver()
    outcome = broken.start().finish()
    assert len(outcome.attempts) == 2
    outcome.assert_same(uninterrupted)


def test_driver_told_to_stop_loses_no_step(run, uninterrupted, seed):
    broken = run(extra=["budget.checkpoint_every=64"]).start()
    broken.wait_for("attempts/0001.json")
    time.sleep(0.1 * seed)
    broken.process.send_signal(signal.SIGTERM)
    assert broken.wait() == 1, broken.text[-4000:]
    assert "the same command resumes it" in broken.text
    outcome = broken.start().finish()
    assert outcome.attempts[1]["first_step"] > 0, "it saved before it left"
    outcome.assert_same(uninterrupted)


def test_worker_frozen_is_noticed_and_started_again(run, uninterrupted, seed):
    broken = run(workers="2", extra=["resources.hang_timeout_s=12"]).start()
    broken.wait_for_a_random_checkpoint(seed)
    broken.workers()[seed % 2].send_signal(signal.SIGSTOP)
    outcome = broken.finish()
    assert len(outcome.attempts) == 2
    outcome.assert_same(uninterrupted, weights=False)
    stacks = [outcome.store.read(name) for name, _ in outcome.store.list("hangs/")]
    assert any(b"orchestrator/loop.py" in text for text in stacks)


def test_newest_checkpoint_damaged_falls_back_to_the_one_before(run, uninterrupted, seed):
    broken = run().start()
    broken.wait_for("checkpoints/00000008/manifest.json")
    broken.kill_driver()
    newest = sorted(broken.folder.glob("*/checkpoints/*/manifest.json"))[-1].parent / "state.pt"
    data = bytearray(newest.read_bytes())
    data[(seed * 7919 + len(data) // 3) % len(data)] ^= 0xFF
    newest.write_bytes(data)
    outcome = broken.start().finish()
    assert outcome.attempts[1]["first_step"] == int(newest.parent.name) - 4
    assert "is damaged, taking the one before" in broken.text
    outcome.assert_same(uninterrupted)


def test_loss_not_finite_rolls_back_a_bounded_number_of_times_and_says_so(run, seed):
    broken = run(extra=["optim.lr=1e30", f"seed={seed}", "resources.max_rollbacks=2"]).start()
    assert broken.wait() == 1
    assert broken.text.count("ROLLBACK 1: not finite after step") >= 1
    assert "2 rollback(s) did not help: lower optim.lr" in broken.text
    assert "Traceback" not in broken.text.partition("failed:")[2]
