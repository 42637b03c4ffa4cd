import pytest
import torch

from orchestrator.checkpoint import BackgroundSaver, Checkpoints
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


@pytest.mark.parametrize(("highest", "kept"), [(False, [20, 50, 60]), (True, [30, 50, 60])])
def test_best_by_metric_stays_beside_the_newest(tmp_path, highest, kept):
    checkpoints = Checkpoints(LocalStore(str(tmp_path)), keep=2, metric="loss", highest=highest)
    values = {10: 5.0, 20: 1.0, 30: 9.0, 40: 1.0, 50: 4.0, 60: None}
    for step, value in values.items():
        metrics = {} if value is None else {"loss": value}
        checkpoints.save(step, {"w": torch.zeros(1)}, {"metrics": metrics})
    assert checkpoints.steps() == kept
    assert checkpoints.best() == kept[0]


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


def test_newest_with_any_bit_of_its_manifest_flipped_falls_back_to_the_one_before(tmp_path):
    checkpoints = _store(tmp_path, [10, 20])
    manifest = tmp_path / "checkpoints/00000020/manifest.json"
    whole = manifest.read_bytes()
    for bit in range(8 * len(whole)):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        manifest.write_bytes(broken)
        assert checkpoints.newest().step == 10, f"bit {bit}"
    manifest.write_bytes(whole)
    assert checkpoints.newest().step == 20


def test_newest_without_a_manifest_is_no_checkpoint(tmp_path):
    checkpoints = _store(tmp_path, [10, 20])
    (tmp_path / "checkpoints/00000020/manifest.json").unlink()
    assert checkpoints.newest().step == 10
    assert Checkpoints(LocalStore(str(tmp_path / "none")), keep=2).newest() is None


def test_background_saver_keeps_the_state_of_its_moment_while_training_changes_it(tmp_path):
    checkpoints = Checkpoints(LocalStore(str(tmp_path)), keep=3)
    saver = BackgroundSaver(checkpoints)
    weight = torch.zeros(1000, 100)
    for step in (1, 2, 3):
        weight.fill_(step)
        saver.save(step, {"w": weight, "groups": [{"lr": 0.1}]}, {})
        weight.fill_(-1)  # the next step begins at once
    saver.wait()
    for step in (1, 2, 3):
        state = checkpoints.load(step).state
        assert state["w"].unique().tolist() == [step]
        assert state["groups"] == [{"lr": 0.1}]


class FullDisk(LocalStore):
    """Fails every write of `state.pt` of one step."""

    def write(self, name, data):
        if "00000002" in name:
            raise OSError(28, "No space left on device")
        super().write(name, data)


def test_background_saver_that_cannot_write_leaves_the_older_one_and_says_so(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("orchestrator.checkpoint.WRITE_TRIES", 1)
    checkpoints = Checkpoints(FullDisk(str(tmp_path)), keep=3)
    saver = BackgroundSaver(checkpoints)
    saver.save(1, {"w": torch.ones(1)}, {})
    saver.save(2, {"w": torch.ones(1)}, {})
    with pytest.raises(OSError, match="No space left"):
        saver.wait()
    assert "checkpoint 2 could not be written" in caplog.text
    assert checkpoints.newest().step == 1
    saver.save(3, {"w": torch.ones(1)}, {})
    saver.wait()
    assert checkpoints.newest().step == 3
