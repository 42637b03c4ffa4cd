"""The ingest's memory does not grow with a video's length."""

import dataclasses
import subprocess
import sys
from fractions import Fraction

import av
import pytest

from shards.demo import FPS, encode, scenes

LIMIT_MB = 1500


def repeated(source, path, seconds, fps):
    """A video of `seconds`, made of the packets of a short one, shown `fps` per second."""
    with av.open(source) as given, av.open(path, "w") as made:
        template = given.streams.video[0]
        stream = made.add_stream_from_template(template)
        stream.time_base = Fraction(1, 12_800)
        packets = [bytes(p) for p in given.demux(template) if p.size]
        keys = {0}
        for n in range(seconds * fps):
            packet = av.Packet(packets[n % len(packets)])
            packet.stream, packet.time_base = stream, stream.time_base
            packet.pts = packet.dts = n * 12_800 // fps
            packet.is_keyframe = n % len(packets) in keys
            made.mux(packet)
    return path


MEASURED = """
import sys
from shards.ingest import main
status = main(sys.argv[1:])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("peak_kb", peak.split()[1])
sys.exit(status)
"""


def peak_mb(folder, dst):
    """Of a whole ingest in a process of its own; getrusage would count its parent's past, too."""
    arguments = [sys.executable, "-c", MEASURED, str(folder), str(dst), "--workers", "1"]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    return int(done.stdout.rpartition("peak_kb ")[2]) / 1024


@pytest.mark.parametrize(
    ("scale", "seconds", "fps"),
    [
        pytest.param(2, 6, FPS, id="6 s"),
        # Nightly: some minutes. 2 pictures per second keep it short; the grid still has 180,000
        # slots and 5,625 clips.
        pytest.param(9, 7200, 2, id="two hours, 1440x1080", marks=pytest.mark.nightly),
    ],
)
@pytest.mark.timeout(1800)
def test_long_video_is_ingested_in_bounded_memory(tmp_path, scale, seconds, fps):
    scene = dataclasses.replace(scenes(1)[0], scale=scale)
    encode(scene, tmp_path / "short.mp4", 2 * FPS)
    (tmp_path / "v").mkdir()
    repeated(tmp_path / "short.mp4", tmp_path / "v/long.mp4", seconds, fps)
    peak = peak_mb(tmp_path / "v", tmp_path / "d")
    print(f"peak {peak:.0f} MB")
    assert peak < (LIMIT_MB if seconds > 60 else 400)
