"""What goes wrong around an ingest: videos that hang or kill, networks, drivers that are killed."""

import http.server
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from shards import distribute, sources, spill, watch
from shards.ingest import Progress, ingest, main
from shards.recipe import Recipe
from shards.sources import find_sources
from shards.spill import CutJob, cut_batch
from shards.storage import LocalStore
from shards.watch import Limits

RECIPE = Recipe(name="test", stabilizer="lk")


def sealed(root):
    """Everything in a dataset whose bytes are promised."""
    found = {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    found.pop("report.json", None)
    return found


def fates(root):
    report = json.loads((root / "report.json").read_text())
    return {video["source"]: video for video in report["videos"]}


@pytest.fixture(scope="module")
def videos(tmp_path_factory, panning):
    root = tmp_path_factory.mktemp("videos")
    for n in range(12):
        panning(root / f"v{n:02d}.mp4", 70 + n, seed=n)
    return root


@pytest.fixture(scope="module")
def two_at_a_time():
    with distribute.cluster(2) as at_a_time:
        yield at_a_time


def listed(folder, tmp_path, *extra):
    """A list file of four good videos and some others."""
    lines = [f"{folder}/v{n:02d}.mp4" for n in range(4)]
    (tmp_path / "list.txt").write_text("\n".join([*lines, *map(str, extra)]))
    return str(tmp_path / "list.txt")


def test_video_that_hangs_is_left_out_and_the_rest_is_kept(
    two_at_a_time, videos, tmp_path, monkeypatch
):
    monkeypatch.setattr(spill, "ATTEMPTS", 2)
    os.mkfifo(tmp_path / "hangs.mp4")  # opening it waits for a writer that never comes
    src = listed(videos, tmp_path, tmp_path / "hangs.mp4")
    limits = Limits(stall_s=2)
    recipe = Recipe(name="test", stabilizer="lk", batch_sources=8)
    ingest(src, str(tmp_path / "d"), recipe, workers=2, limits=limits)
    found = fates(tmp_path / "d")
    assert found[str(tmp_path / "hangs.mp4")]["reason"] == "timed_out"
    assert "did not move for 2 s" in found[str(tmp_path / "hangs.mp4")]["detail"]
    assert [video["clips"] for video in found.values()].count(2) == 4


def job(dataset, folder, **options):
    found = tuple(find_sources(str(folder)))[:3]
    names = {"dataset": str(dataset), "folder": ".ingest/x", "number": 0}
    return CutJob(**names, recipe=RECIPE, sources=found, **options)


def test_video_that_kills_its_process_is_left_out_after_the_second_time(
    two_at_a_time, videos, tmp_path
):
    def deadly(todo):
        from shards.cut import Cutter

        real = Cutter._read

        def read(cutter):
            if cutter.source.name == "v01.mp4":
                with (Path(todo.dataset) / "deaths").open("a") as file:
                    file.write("x")
                os.kill(os.getpid(), signal.SIGSEGV)
            yield from real(cutter)

        Cutter._read = read
        try:
            return cut_batch(todo)
        finally:
            Cutter._read = real

    (tmp_path / "d").mkdir()
    todo = job(tmp_path / "d", videos)
    [(_, record)] = distribute.spread(deadly, [todo], two_at_a_time)
    assert (tmp_path / "d/deaths").read_text() == "xx"
    reasons = {video["source"]: (video["reason"], video["clips"]) for video in record["videos"]}
    assert reasons == {"v00.mp4": (None, 2), "v01.mp4": ("crashed", 0), "v02.mp4": (None, 2)}


def test_video_that_takes_too_long_leaves_no_clip_and_no_trace(videos, tmp_path, monkeypatch):
    clock = itertools.count()  # a second for each frame
    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    todo = job(tmp_path, videos, limits=Limits(stall_s=1e6, total_s=70.5))
    cut_batch(todo)
    record = spill.read_record(todo, LocalStore(str(tmp_path)))
    fate = {video["source"]: video["reason"] for video in record["videos"]}
    assert fate == {"v00.mp4": None, "v01.mp4": "timed_out", "v02.mp4": "timed_out"}
    names = [name for name, *_ in record["members"]]
    assert len(names) == 4  # two clips of two members, of the one that was in time
    monkeypatch.undo()
    again = job(tmp_path / "alone", videos)
    cut_batch(again)
    alone = spill.read_record(again, LocalStore(str(tmp_path / "alone")))
    assert {tuple(m[::3]) for m in record["members"]} < {tuple(m[::3]) for m in alone["members"]}


class Flaky(http.server.SimpleHTTPRequestHandler):
    """Serves `root`; the first `bad[name]` requests for a name fail."""

    root: Path
    bad: Counter
    asked: Counter

    def __init__(self, *arguments):
        super().__init__(*arguments, directory=str(self.root))

    def do_GET(self):
        name = self.path.strip("/")
        self.asked[name] += 1
        if self.bad[name] <= 0:
            super().do_GET()
            return
        self.bad[name] -= 1
        if name.endswith("2.mp4"):  # promises more than it sends
            data = (self.root / name).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[:1000])
        else:
            self.send_error(503)

    def log_message(self, *_):
        pass


@pytest.fixture
def flaky(videos, monkeypatch):
    """(base URL, the handler): a server that fails on request."""
    monkeypatch.setattr(sources, "HTTP_ATTEMPTS", 2)
    monkeypatch.setattr(sources.time, "sleep", lambda _: None)
    handler = type("Handler", (Flaky,), {"root": videos, "bad": Counter(), "asked": Counter()})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()


def test_network_errors_are_tried_again_and_bounded(flaky, tmp_path):
    url, server = flaky
    names = ["v00.mp4", "v01.mp4", "v02.mp4", "v03.mp4", "gone.mp4"]
    server.bad.update({"v01.mp4": 1, "v02.mp4": 3, "v03.mp4": 1000})
    (tmp_path / "list.txt").write_text("\n".join(f"{url}/{name}" for name in names))
    said = []

    class Bar(Progress):
        def show(self):
            said.append((self.done, dict(self.counts)))

    src, dst = str(tmp_path / "list.txt"), str(tmp_path / "d")
    ingest(src, dst, RECIPE, workers=1, progress=Bar)
    found = {name.rpartition("/")[2]: video for name, video in fates(tmp_path / "d").items()}
    assert [found[name]["clips"] for name in names] == [2, 2, 2, 0, 0]
    assert found["v03.mp4"]["reason"] == "unreadable"
    assert "503" in found["v03.mp4"]["detail"]
    assert found["gone.mp4"]["reason"] == "missing"
    assert server.asked == {
        "v00.mp4": 1,
        "v01.mp4": 2,  # again at once
        "v02.mp4": 4,  # again in the second attempt at its batch, then whole
        "v03.mp4": 2 * spill.ATTEMPTS,
        "gone.mp4": 1,
    }
    assert said[0] == (5, {"kept": 6, "video unreadable": 1, "video missing": 1})


ARGUMENTS = ["--stabilizer", "lk", "--encoding", "u8", "--shard-mib", "1"]


@pytest.fixture(scope="module")
def reference(videos, tmp_path_factory):
    root = tmp_path_factory.mktemp("reference") / "d"
    assert main([str(videos), str(root), "--workers", "1", *ARGUMENTS]) == 0
    return sealed(root)


@pytest.mark.parametrize(
    ("moment", "files"),
    [
        ("early", (".ingest/*/cut/*.json", 1)),
        ("late", (".ingest/*/cut/*.json", 9)),
        ("packing", (".ingest/*/pack/*.json", 2)),
    ],
)
def test_driver_killed_loses_and_repeats_nothing(
    two_at_a_time, videos, tmp_path, monkeypatch, reference, moment, files
):
    pattern, count = files
    command = [sys.executable, "-m", "shards.ingest", str(videos), str(tmp_path), *ARGUMENTS]
    address = ray.get_runtime_context().gcs_address
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(
            [*command, "--workers", "2"],
            env={**os.environ, "RAY_ADDRESS": address},
            stdout=log,
            stderr=log,
        )
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob(pattern))) < count:
            assert driver.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    (tmp_path / "log").unlink()
    assert not (tmp_path / "manifest.json").exists()
    done = {path.stem for path in tmp_path.glob(".ingest/*/cut/*.json")}
    again = []
    monkeypatch.setattr(
        "shards.ingest.cut_batch", lambda job: again.append(job) or spill.cut_batch(job)
    )
    arguments = [str(videos), str(tmp_path), *ARGUMENTS]
    assert main([*arguments, "--workers", "1"]) == 0
    assert not done & {f"{job.number:06d}" for job in again}
    assert (moment == "packing") == (not again)
    assert sealed(tmp_path) == reference


def test_limits_of_nothing_are_refused(tmp_path, capsys):
    assert main([str(tmp_path), str(tmp_path / "d"), "--stall-timeout", "0"]) == 2
    assert "must be above 0" in capsys.readouterr().err


def test_large_upload_from_another_disk_is_copied_in_parts(tmp_path, monkeypatch):
    source = tmp_path / "big"
    source.write_bytes(os.urandom(3 << 20))
    data = source.read_bytes()
    other = SimpleNamespace(st_dev=-1)
    real = Path.stat
    monkeypatch.setattr(Path, "stat", lambda p, **k: other if p == source else real(p, **k))
    monkeypatch.setattr(Path, "read_bytes", None)  # a spill may be larger than memory
    LocalStore(str(tmp_path / "s")).upload("a/b.tar", source)
    monkeypatch.undo()
    assert (tmp_path / "s/a/b.tar").read_bytes() == data
    assert [path.name for path in (tmp_path / "s/a").iterdir()] == ["b.tar"]
