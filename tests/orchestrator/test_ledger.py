from orchestrator.ledger import Ledger, read_ledger
from shards.storage import LocalStore


def test_ledger_steps_done_twice_count_once_in_rank_order(tmp_path):
    store = LocalStore(str(tmp_path))
    for rank in (1, 0):
        first = Ledger(store, attempt=1, rank=rank)
        for step in range(3):
            first.add(step, [f"{step}-{rank}"])
        first.flush()
    lost = Ledger(store, attempt=1, rank=0)
    lost.add(3, ["never flushed"])
    second = Ledger(store, attempt=2, rank=0)
    second.add(2, ["2-0", "2-1"])
    second.add(3, ["3-0", "3-1"])
    second.flush()
    assert read_ledger(store) == [
        (0, ["0-0", "0-1"]),
        (1, ["1-0", "1-1"]),
        (2, ["2-0", "2-1"]),
        (3, ["3-0", "3-1"]),
    ]
