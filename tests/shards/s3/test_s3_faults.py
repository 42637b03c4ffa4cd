"""S3 as it is on a bad day: errors in bursts, late answers, bodies that stop half way."""

from __future__ import annotations

import time
from itertools import islice
from typing import Any

import pytest

from shards import s3
from shards.cut import Cutter
from shards.hedge import Hedge
from shards.read import Reader, Slice, open_dataset
from shards.recipe import RECIPES
from shards.s3 import S3Store
from shards.sources import Source
from shards.storage import UnreachableError

SLOW_DOWN = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: 48\r\n"
    b"Connection: close\r\n\r\n<Error><Code>SlowDown</Code><Message/></Error>  "
)
DATA = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def store(broken: Any, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A store behind the proxy, with `DATA` at `a`, and pauses that do not hold the tests up."""
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 0.5)
    store = S3Store(broken.bucket.location)
    store.write("a", DATA)
    return store


def test_s3_burst_of_503_is_waited_out(store: S3Store, broken: Any, fault: Any) -> None:
    first = broken.proxy.requests
    broken.proxy.decide = lambda n, _: fault(reply=SLOW_DOWN) if n <= first + 2 else None
    assert store.read_range("a", 100, 1000) == DATA[100:1100]
    assert broken.proxy.requests == first + 3


@pytest.mark.parametrize("then", ["stall", "cut"])
def test_s3_body_that_stops_half_way_is_read_again(
    store: S3Store, broken: Any, fault: Any, then: str
) -> None:
    first = broken.proxy.requests
    stop = fault(pass_bytes=500_000, then=then)
    broken.proxy.decide = lambda n, _: stop if n == first + 1 else None
    assert store.read("a") == DATA
    broken.proxy.decide = lambda n, _: stop if n == first + 3 else None
    assert store.read_range("a", 0, len(DATA)) == DATA


def test_s3_conditional_write_whose_answer_was_lost_knows_it_won(
    store: S3Store, broken: Any, fault: Any
) -> None:
    first = broken.proxy.requests
    broken.proxy.decide = lambda n, _: fault(pass_bytes=0, then="cut") if n == first + 1 else None
    assert store.write_new("once", b"mine") is True
    assert broken.proxy.requests > first + 1
    assert S3Store(broken.bucket.location).write_new("once", b"theirs") is False
    assert store.read("once") == b"mine"


def test_s3_endpoint_that_is_down_says_what_to_check(
    broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken.proxy.close()
    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    said = rf"S3 at {broken.proxy.endpoint} cannot be reached: EndpointConnectionError.*is the end"
    with pytest.raises(UnreachableError, match=said):
        S3Store(broken.bucket.location).read("a")


def test_s3_endpoint_that_only_answers_503_is_told_from_a_fault_of_the_object(
    store: S3Store, broken: Any, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    broken.proxy.decide = lambda *_: fault(reply=SLOW_DOWN)
    with pytest.raises(UnreachableError, match=r"it answers 503 \(SlowDown\)"):
        S3Store(broken.bucket.location).read("a")


def test_ingest_of_a_video_whose_endpoint_is_gone_stops_and_does_not_reject_it(
    broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    broken.proxy.close()
    video = Source(name="a.mp4", location=f"{broken.bucket.location}/a.mp4")
    with pytest.raises(UnreachableError):
        list(Cutter(video, RECIPES["flickr"]).samples())


@pytest.mark.parametrize("how", ["refuses", "stalls"])
def test_reader_whose_endpoint_goes_away_says_so_and_blames_no_sample(
    broken: Any, make_dataset: Any, fault: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 0.3)
    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    made = make_dataset([30, 30, 30])
    store = S3Store(broken.bucket.location)
    for path in made.root.rglob("*.*"):
        store.write(path.relative_to(made.root).as_posix(), path.read_bytes())
    part = Slice(rank=0, world_size=1, global_batch=10)
    dataset = open_dataset(broken.bucket.location)
    reader = Reader(dataset, seed=1, slice=part, prefetch_mib=0, threads=4, tolerance=0)
    batches = reader.batches(0)
    assert next(batches).valid_b.all()
    if how == "refuses":
        broken.proxy.close()
    else:
        broken.proxy.decide = lambda *_: fault(pass_bytes=0)
    with pytest.raises(UnreachableError, match=rf"S3 at {broken.proxy.endpoint} cannot be reached"):
        next(batches)
    assert reader.quarantined == {}


@pytest.mark.parametrize("broken", ["seaweed"], indirect=True)  # it keeps connections open
def test_s3_request_slower_than_its_like_is_sent_again_on_a_new_connection(
    store: S3Store, broken: Any, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 30.0)
    for n in range(60):
        assert store.read_range("a", n, 100) == DATA[n : n + 100]
    before = store.hedge_counts()
    connections = broken.proxy.connections
    slow = broken.proxy.requests + 1
    broken.proxy.decide = lambda n, _: fault(delay_s=20) if n == slow else None
    begin = time.monotonic()
    assert store.read_range("a", 7, 100) == DATA[7:107]
    assert time.monotonic() - begin < 10
    after = store.hedge_counts()
    assert after["hedged"] == before["hedged"] + 1
    assert after["won"] == before["won"] + 1
    assert broken.proxy.connections == connections + 1


def test_hedge_when_everything_is_slow_stays_within_its_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shards.hedge.FIRST_DELAY_S", 0.001)
    hedge = Hedge()

    def slow() -> bytes:
        time.sleep(0.01)
        return b"x"

    for _ in range(40):
        assert hedge.run(1, slow, slow) == b"x"
    assert hedge.sent == 40
    assert hedge.hedged <= 10 + 40 * 0.05


def test_hedge_first_fails_after_the_second_was_sent_uses_the_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shards.hedge.FIRST_DELAY_S", 0.01)

    def fails() -> bytes:
        time.sleep(0.03)
        raise OSError("first")

    def works() -> bytes:
        time.sleep(0.06)
        return b"second"

    assert Hedge().run(1, fails, works) == b"second"
    with pytest.raises(OSError, match="first"):
        Hedge().run(1, fails, fails)


def test_reader_under_a_storm_of_faults_gives_the_same_batches(
    broken: Any, make_dataset: Any, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 0.5)
    made = make_dataset([30, 30], encoding="jpg", shape=(8, 16, 16, 3))
    store = S3Store(broken.bucket.location)
    for path in made.root.rglob("*.*"):
        if path.is_file():
            store.write(path.relative_to(made.root).as_posix(), path.read_bytes())

    def decide(n: int, head: bytes) -> Any:
        if not head.startswith(b"GET") or b"range:" not in head.lower():
            return None
        return {
            0: fault(reply=SLOW_DOWN),
            3: fault(pass_bytes=300, then="cut"),
            6: fault(pass_bytes=700, then="stall"),
        }.get(n % 9)

    broken.proxy.decide = decide
    part = Slice(rank=0, world_size=1, global_batch=10)
    seen = []
    for location in (made.location, broken.bucket.location):
        reader = Reader(open_dataset(location), seed=1, slice=part, prefetch_mib=0, threads=8)
        batches = reader.batches(0)
        seen.append([(b.keys, b.video_bthwc.tobytes()) for b in islice(batches, 6)])
        batches.close()
        assert reader.quarantined == {}
    assert seen[0] == seen[1]
