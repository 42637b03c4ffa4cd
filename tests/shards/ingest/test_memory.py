"""The ingest's memory does not grow with a video's length."""

import dataclasses
import json
import subprocess
import sys
import time
from fractions import Fraction

import av
import pytest

from shards.demo import FPS, scenes

LIMIT_MB = 1500


def filmed(path, scale, height, frames):
    """A short video, 160 * scale wide, the scene cut to `height`."""
    scene = dataclasses.replace(scenes(1)[0], scale=scale)
    width, whole = scene.size
    above = (whole - height) // 2
    with av.open(path, "w") as made:
        stream = made.add_stream("libx264", rate=FPS)
        (stream.width, stream.height), stream.pix_fmt = (width, height), "yuv420p"
        stream.options = {"crf": "18", "preset": "veryfast", "tune": "zerolatency"}
        for t in range(frames):
            seen = scene.frame(t)[above : above + height]
            made.mux(stream.encode(av.VideoFrame.from_ndarray(seen, format="rgb24")))
        made.mux(stream.encode(None))


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
    ("scale", "height", "seconds", "fps"),
    [
        pytest.param(2, 240, 6, FPS, id="6 s"),
        # Nightly: some minutes. 2 pictures per second keep it short; the grid still has 180,000
        # slots and 5,625 clips, and every picture is decoded at its full size.
        pytest.param(12, 1080, 7200, 2, id="two hours, 1920x1080", marks=pytest.mark.nightly),
    ],
)
@pytest.mark.timeout(3600)
def test_long_video_is_ingested_in_bounded_memory(tmp_path, scale, height, seconds, fps):
    filmed(tmp_path / "short.mp4", scale, height, 2 * FPS)
    (tmp_path / "v").mkdir()
    repeated(tmp_path / "short.mp4", tmp_path / "v/long.mp4", seconds, fps)
    begin = time.monotonic()
    peak = peak_mb(tmp_path / "v", tmp_path / "d")
    [video] = json.loads((tmp_path / "d/report.json").read_text())["videos"]
    assert (video["width"], video["height"]) == (160 * scale, height)
    assert video["frames"] == pytest.approx(seconds * FPS, abs=FPS)
    print(f"peak {peak:.0f} MB after {time.monotonic() - begin:.0f} s, {video['clips']} clips")
    assert peak < (LIMIT_MB if seconds > 60 else 400)
