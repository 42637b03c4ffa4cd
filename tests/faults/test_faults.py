"""Every way to lose a part of a run, at a moment that a seed decides; the proof is the same.

The ledger of consumed keys is that of the uninterrupted run, and at one world size on CPU the
weights are its weights, bit for bit. `FAULT_SEEDS=20` runs 20 moments of each; `make soak` runs
them one at a time and keeps a record.
"""

import os
import random
import signal

import pytest

from tests.faults.command import EVERY

SEEDS = range(int(os.environ.get("FAULT_SEEDS", "1")))
pytestmark = [pytest.mark.timeout(1200), pytest.mark.parametrize("seed", SEEDS)]
# One checkpoint may be in the writing when all ends.
MOST_LOST = 2 * EVERY
EXPLODING = ["optim.lr=0.1", "resources.explosion=7", "resources.max_rollbacks=6"]


def test_worker_killed(run, uninterrupted, seed):
    broken = run().start()
    broken.wait_for_attempt()
    workers = broken.workers()
    broken.wait_for_a_moment(seed)
    for worker in workers:
        worker.kill()
    outcome = broken.finish()
    assert len(outcome.attempts) == 2
    assert 0 <= broken.steps_lost(outcome) <= MOST_LOST
    outcome.assert_same(uninterrupted)


@pytest.mark.nightly  # as a worker's death, a minute more
def test_controller_killed(run, uninterrupted, seed):
    broken = run().start()
    broken.wait_for_attempt()
    (controller,) = broken.processes("TrainController")
    broken.wait_for_a_moment(seed)
    controller.kill()
    outcome = broken.finish()
    assert len(outcome.attempts) == 2
    assert 0 <= broken.steps_lost(outcome) <= MOST_LOST
    outcome.assert_same(uninterrupted)


def test_driver_killed_and_the_same_command_again(run, uninterrupted, seed):
    broken = run().start()
    broken.wait_for_a_moment(seed)
    broken.kill_driver()
    outcome = broken.start().finish()
    assert len(outcome.attempts) == 2
    assert 0 <= broken.steps_lost(outcome) <= MOST_LOST
    outcome.assert_same(uninterrupted)


@pytest.mark.nightly  # two drivers at once: a minute and more
def test_same_command_given_while_the_first_trains_goes_on_and_ends_the_first(
    run, uninterrupted, seed
):
    broken = run().start()
    broken.wait_for_attempt()
    first, workers = broken.process, broken.workers()
    broken.wait_for_a_moment(seed)
    for worker in workers:  # held until the second has begun, so that both of them train at once
        worker.suspend()
    broken.start().wait_for_attempt(2)
    for worker in workers:
        worker.resume()
    outcome = broken.finish()
    assert first.wait(60) == 1
    assert "it has been started again; that start goes on, this one ends" in broken.text
    assert len(outcome.attempts) == 2
    assert outcome.chunks_after_the_second_began() <= 3
    outcome.assert_same(uninterrupted)


def test_driver_told_to_stop_loses_no_step(run, uninterrupted, seed):
    broken = run(extra=["budget.checkpoint_every=64", "budget.samples_every=8"]).start()
    broken.wait_for_a_moment_without_checkpoints(seed)
    broken.process.send_signal(signal.SIGTERM)
    assert broken.wait() == 1, broken.text[-4000:]
    assert "the same command resumes it" in broken.text
    outcome = broken.start().finish()
    assert outcome.attempts[1]["first_step"] > 0, "it saved before it left"
    assert broken.steps_lost(outcome) == 0
    outcome.assert_same(uninterrupted)


@pytest.mark.nightly  # waits for the hang to be noticed
def test_worker_frozen_is_noticed_and_started_again(run, uninterrupted, seed):
    broken = run(workers="2", extra=["resources.hang_timeout_s=15"]).start()
    broken.wait_for_attempt()
    frozen = broken.workers()[seed % 2]
    broken.wait_for_a_moment(seed)
    frozen.suspend()
    outcome = broken.finish()
    assert len(outcome.attempts) == 2
    outcome.assert_same(uninterrupted, weights=False)
    stacks = [outcome.store.read(name) for name, _ in outcome.store.list("hangs/")]
    assert stacks
    # The other worker waits for this one: in a step's collective, or in a checkpoint's.
    waits = (b"orchestrator/loop.py", b"orchestrator/parallel.py")
    assert any(b"orchestrator/worker.py" in text for text in stacks)
    assert any(place in text for text in stacks for place in waits)


@pytest.mark.nightly  # a minute; what is damaged, and what is taken then, is in test_checkpoint
def test_newest_checkpoint_damaged_falls_back_to_the_one_before(run, uninterrupted, seed):
    broken = run().start()
    broken.wait_for_checkpoint(2 * EVERY)
    broken.wait_for_a_moment(seed)
    broken.kill_driver()
    newest = sorted(broken.folder.glob("*/checkpoints/*/manifest.json"))[-1].parent
    broken.note("damage", damage(newest, random.Random(seed)))
    outcome = broken.start().finish()
    assert outcome.attempts[1]["first_step"] == int(newest.name) - EVERY
    assert "is damaged, taking the one before" in broken.text
    outcome.assert_same(uninterrupted)


def damage(checkpoint, draw):
    """Harms one file of a checkpoint in a way that is drawn; says which."""
    path = checkpoint / draw.choice(["state.pt", "manifest.json"])
    data = bytearray(path.read_bytes())
    at = draw.randrange(len(data))
    what = draw.choice(["flip", "cut"])
    if what == "flip":
        data[at] ^= 1 << draw.randrange(8)
    path.write_bytes(data if what == "flip" else data[:at])
    return f"{path.name}: {what} at {at} of {len(data)}"


@pytest.fixture(scope="session")
def exploding(once):
    """A run whose loss explodes at its second step, until the rate is a half or a quarter."""
    return once("exploding", extra=EXPLODING)


@pytest.mark.nightly  # two minutes with its baseline; the rollback has tests in test_worker
def test_loss_explodes_is_rolled_back_and_the_halved_rate_survives_a_kill(run, exploding, seed):
    broken = run(extra=EXPLODING).start()
    broken.wait_for_checkpoint(EVERY)
    broken.wait_for_a_moment(seed)
    broken.kill_driver()
    outcome = broken.start().finish()
    assert len(outcome.attempts) == 2
    times = [len(list(each.store.list("rollbacks/"))) for each in (outcome, exploding)]
    assert times[0] == times[1] == broken.text.count("ROLLBACK")
    assert "ROLLBACK 1: exploded after step" in broken.text
    outcome.assert_same(exploding)


def test_loss_not_finite_rolls_back_a_bounded_number_of_times_and_says_so(run, seed):
    late = f"budget.log_every={1 + seed % EVERY}"  # how long until it is noticed
    broken = run(extra=["optim.lr=1e30", f"seed={seed}", "resources.max_rollbacks=2", late]).start()
    assert broken.wait() == 1
    assert broken.text.count("ROLLBACK 1: not finite after step") >= 1
    assert "2 rollback(s) did not help: lower optim.lr" in broken.text
    assert "Traceback" not in broken.text.partition("failed:")[2]
