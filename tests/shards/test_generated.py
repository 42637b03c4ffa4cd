"""Generated datasets: what is made on the fly is, byte for byte, what the tars hold."""

import hashlib
import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from shards.batch import Slice
from shards.bouncing import Bouncing, find_glyphs
from shards.dataset import open_dataset
from shards.generated import generate, main
from shards.preview import main as preview
from shards.read import Reader
from shards.storage import LocalStore, open_store
from shards.verify import main as verify

CLIPS = Bouncing(digits=2, count=300)  # two shards, the second of 44


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated")
    glyphs = find_glyphs(None)
    for name, tars in (("made", False), ("kept", True)):
        generate(LocalStore(str(folder / name)), CLIPS, glyphs, tars=tars)
    return folder


def test_generated_tars_are_byte_for_byte_those_that_are_kept(folder):
    made, kept = (open_dataset(str(folder / name)) for name in ("made", "kept"))
    assert made.version == kept.version
    assert not list((folder / "made/shards").glob("*.tar"))
    for shard in made.manifest.shards:
        tar = made.store.read(shard.tar)
        assert tar == (folder / "kept" / shard.tar).read_bytes()
        assert hashlib.sha256(tar).hexdigest() == shard.sha256
        for offset, size in ((0, 1), (511, 1200), (len(tar) - 700, 9999), (len(tar), 5)):
            assert made.store.read_range(shard.tar, offset, size) == tar[offset : offset + size]
    sizes = dict(made.store.list("shards/"))
    assert sizes == dict(kept.store.list("shards/"))


def test_tars_are_plain_ones_that_any_tar_reads(folder):
    with tarfile.open(folder / "kept/shards/000001.tar") as tar:
        names = tar.getnames()
        assert names[:2] == ["00000256.json", "00000256.u8"]
        assert len(names) == 2 * 44
        video = tar.extractfile("00000299.u8").read()
    expected, _ = CLIPS.clip(299, find_glyphs(None))
    assert video == expected.tobytes()


def test_reader_gives_every_clip_once_with_its_caption(folder):
    dataset = open_dataset(str(folder / "made"))
    assert dataset.samples == 300
    assert {"digit", "moving", "up", "7"} <= set(dataset.words)
    slice_ = Slice(rank=0, world_size=1, global_batch=50)
    keys = []
    with_json = Reader(dataset, seed=3, slice=slice_, with_json=True)
    batches = with_json.batches(0)
    for _ in range(6):
        batch = next(batches)
        keys += batch.keys
        for video, note in zip(batch.video_bthwc, batch.json, strict=True):
            expected, told = CLIPS.clip(note["n"], find_glyphs(None))
            assert np.array_equal(video, expected)
            assert note == told
            break  # one of each batch: finding the digits takes longer than making a clip
    batches.close()
    assert sorted(keys) == [f"{n:08d}" for n in range(300)]


def test_pictures_that_changed_are_found_out(folder, tmp_path):
    """Another picture gives other bytes than the index has a crc32c of."""
    glyphs = find_glyphs(None)
    generate(LocalStore(str(tmp_path)), CLIPS, glyphs)
    packed = io.BytesIO()
    np.savez(packed, pictures=255 - glyphs.pictures, digits=glyphs.digits)
    (tmp_path / "digits.npz").write_bytes(packed.getvalue())
    dataset = open_dataset(str(tmp_path))
    reader = Reader(dataset, seed=0, slice=Slice(rank=0, world_size=1, global_batch=50))
    from shards.read import DataFault

    with pytest.raises(DataFault, match="crc32c differs"):
        for _, _ in zip(range(3), reader.batches(0), strict=False):
            pass


def test_tools_verify_and_show_a_dataset_without_tars(folder, tmp_path, capsys):
    assert verify([str(folder / "made")]) == 0
    assert "300" in capsys.readouterr().out
    assert preview([str(folder / "made"), "--out", str(tmp_path), "--clips", "4"]) == 0
    assert Image.open(tmp_path / "clips.gif").n_frames > 1


def test_command_makes_a_dataset_and_names_what_is_wrong(tmp_path, capsys):
    assert main([str(tmp_path / "one"), "--count", "20", "--part", "unseen"]) == 0
    assert "20 clips of 1 digit(s) of scikit-learn, without tars" in capsys.readouterr().out
    assert open_dataset(str(tmp_path / "one")).samples == 20
    assert main([str(tmp_path / "no"), "--digits", "3"]) == 2
    assert "digits=3: must be 1 or 2" in capsys.readouterr().err
    assert main([str(tmp_path / "no"), "--pictures", str(tmp_path)]) == 2
    assert "no file named" in capsys.readouterr().err
    assert not any(open_store(str(tmp_path / "no")).list())
