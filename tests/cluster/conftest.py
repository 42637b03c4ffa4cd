"""What tests of commands over helm and kubectl share."""

from pathlib import Path

import pytest

from cluster import rayjobs
from tests.cluster.playback import Programs


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(rayjobs, "POLL_S", 0.0)
    out = Programs(tmp_path)
    out.play()
    return out
