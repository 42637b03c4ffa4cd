import torch

from orchestrator.checkpoint import Checkpoints
from shards.storage import LocalStore


def _store(tmp_path, steps, keep=3):
    checkpoints = Checkpoints(LocalStore(str(tmp_path)), keep=keep)
    for step in steps:
        checkpoints.save(step, {"w": torch.full((3,), float(step))}, {"run": "r"})
    return checkpoints


def test_newest_of_several_is_loaded_and_old_ones_are_gone(tmp_path):
    checkpoints = _store(tmp_path, [10, 20, 30, 40])
    assert checkpoints.steps() == [20, 30, 40]
    newest = checkpoints.newest()
    assert (newest.step, newest.facts) == (40, {"run": "r"})
    assert torch.equal(newest.state["w"], torch.full((3,), 40.0))
    assert not (tmp_path / "checkpoints/00000010/state.pt").exists()


def test_newest_damaged_in_any_way_falls_back_to_the_one_before(tmp_path, caplog):
    checkpoints = _store(tmp_path, [10, 20, 30])
    flipped = tmp_path / "checkpoints/00000030/state.pt"
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    (tmp_path / "checkpoints/00000020/state.pt").unlink()
    assert checkpoints.newest().step == 10
    assert "checkpoint 30 is damaged" in caplog.text
    assert "checkpoint 20 is damaged" in caplog.text


def test_newest_without_a_manifest_is_no_checkpoint(tmp_path):
    checkpoints = _store(tmp_path, [10, 20])
    (tmp_path / "checkpoints/00000020/manifest.json").unlink()
    assert checkpoints.newest().step == 10
    assert Checkpoints(LocalStore(str(tmp_path / "none")), keep=2).newest() is None
