import resource

import pytest

from orchestrator.outbox import Outbox


def test_outbox_reopened_after_a_kill_gives_what_was_not_marked_sent(tmp_path):
    first = Outbox(tmp_path, "w")
    for n in range(5):
        first.append({"step": n})
    records, mark = first.pending(3)
    assert [r["step"] for r in records] == [0, 1, 2]
    first.sent(mark)
    first.pending(10)  # read, never marked: a kill before `sent`
    again = Outbox(tmp_path, "w")
    records, mark = again.pending(10)
    assert [r["step"] for r in records] == [3, 4]
    again.sent(mark)
    assert again.pending(10) == ([], mark)
    assert again.last_step() == 4


def test_outbox_half_written_line_is_cut_off_and_appending_goes_on(tmp_path):
    box = Outbox(tmp_path, "w")
    box.append({"step": 0})
    with (tmp_path / "w.jsonl").open("a") as file:
        file.write('{"step": 1, "val')
    healed = Outbox(tmp_path, "w")
    healed.append({"step": 2})
    assert [r["step"] for r in healed.pending(10)[0]] == [0, 2]


def test_outbox_record_for_which_there_is_no_room_is_refused_whole(tmp_path):
    box = Outbox(tmp_path, "w")
    box.append({"step": 0})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))  # a disk with room for half of it
    try:
        with pytest.raises(OSError, match=r"w\.jsonl"):
            box.append({"step": 1})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    box.append({"step": 2})
    assert box.pending(10)[0] == [{"step": 0}, {"step": 2}]


def test_outbox_line_that_is_being_written_waits_until_it_is_whole(tmp_path):
    box = Outbox(tmp_path, "w")
    box.append({"step": 0})
    with (tmp_path / "w.jsonl").open("a") as file:
        file.write('{"step": ')
        file.flush()
        records, mark = box.pending(10)
        assert records == [{"step": 0}]
        box.sent(mark)
        file.write("1}\n")
    assert box.pending(10)[0] == [{"step": 1}]
