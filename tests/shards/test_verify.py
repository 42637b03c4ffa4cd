"""`shards.verify` finds what was broken on purpose, and repairs it from a copy."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from shards import verify


def break_tar(made: Any) -> str:
    """Flips one bit of a clip in the second shard; its key."""
    path = made.root / "shards/000001.tar"
    data = path.read_bytes()
    at = data.index(made.clips["s001-0002"].tobytes())
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    return "s001-0002"


def test_verify_whole_dataset_exits_0(make_dataset: Any, capsys: Any) -> None:
    made = make_dataset([4, 5], encoding="jpg")
    assert verify.main([made.location]) == 0
    assert "2 shards, 9 samples" in capsys.readouterr().out


def test_verify_names_every_broken_file_and_exits_1(make_dataset: Any, capsys: Any) -> None:
    made = make_dataset([4, 5, 3, 3])
    key = break_tar(made)
    (made.root / "shards/000002.idx").unlink()
    cut = made.root / "shards/000003.tar"
    cut.write_bytes(cut.read_bytes()[:2000])
    assert verify.main([made.location]) == 1
    out = capsys.readouterr().out
    assert (
        "shards/000001.tar: sha256 differs from the manifest's (same size); 1 members are " in out
    )
    assert f"damaged: {key}.u8: not repaired" in out
    assert "shards/000002.idx: is missing" in out
    assert "shards/000003.tar: sha256 differs from the manifest's (2000 bytes, not" in out
    assert "3 files broken, 0 repaired" in out
    assert "000000" not in out


def test_verify_clip_that_does_not_decode_is_found_though_checksums_agree(
    make_dataset: Any, capsys: Any
) -> None:
    made = make_dataset([4], shape=(2, 8, 8, 3))
    manifest = made.root / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"frames":2', '"frames":3'))
    assert verify.main([made.location]) == 1
    assert "s000-0000: 384 bytes, a raw clip has 576" in capsys.readouterr().out


def test_verify_repair_restores_the_bytes(make_dataset: Any, tmp_path: Path, capsys: Any) -> None:
    made = make_dataset([4, 5])
    copy = tmp_path / "copy"
    shutil.copytree(made.root, copy)
    break_tar(made)
    (made.root / "shards/000000.idx").unlink()
    assert verify.main([made.location, "--repair", str(copy)]) == 0
    assert "2 files broken, 2 repaired" in capsys.readouterr().out
    for path in copy.rglob("*.*"):
        assert (made.root / path.relative_to(copy)).read_bytes() == path.read_bytes()


def test_verify_repair_from_a_copy_that_is_broken_too_exits_1(
    make_dataset: Any, tmp_path: Path, capsys: Any
) -> None:
    made = make_dataset([4, 5])
    break_tar(made)
    copy = tmp_path / "copy"
    shutil.copytree(made.root, copy)
    assert verify.main([made.location, "--repair", str(copy)]) == 1
    assert "in the source it is damaged or different too" in capsys.readouterr().out


@pytest.mark.parametrize("source", ["other", "nowhere"])
def test_verify_repair_from_something_else_exits_2(
    make_dataset: Any, tmp_path: Path, capsys: Any, source: str
) -> None:
    made = make_dataset([4, 5])
    make_dataset([3], name="other")
    assert verify.main([made.location, "--repair", str(tmp_path / source)]) == 2
    assert "error: " in capsys.readouterr().err


def test_verify_no_dataset_exits_2(tmp_path: Path, capsys: Any) -> None:
    assert verify.main([str(tmp_path)]) == 2
    assert "no dataset at" in capsys.readouterr().err
