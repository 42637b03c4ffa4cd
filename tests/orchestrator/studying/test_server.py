"""The raters' page against raters who are not to be trusted, over real HTTP."""

import http.client
import json
import re
import socket
import sqlite3
from contextlib import contextmanager, suppress

import pytest

from orchestrator.studying.answers import clip_file
from orchestrator.studying.limits import Buckets, Limits
from orchestrator.studying.server import HEADERS, address_of
from tests.orchestrator.studying import cases
from tests.orchestrator.studying.cases import make_study, study_value


class Site:
    """A served study, asked without any client that would mend a request."""

    def __init__(self, answers, port):
        self.answers, self.port = answers, port
        self.home = f"/{answers.token}"

    def ask(self, method, path, body=None, headers=None):
        """(status, headers in lower case, body)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return response.status, names, response.read()
        finally:
            connection.close()

    def json(self, method, path, body=None, key=None):
        """(status, JSON) of a path below the token."""
        data = None if body is None else json.dumps(body).encode()
        given = {"X-Rater": key} if key else {}
        status, _, text = self.ask(method, f"{self.home}/{path}", data, given)
        return status, json.loads(text)

    def join(self):
        status, given = self.json("POST", "raters", {})
        assert status == 201
        return given["key"]

    def answer(self, key, position, value):
        return self.json("POST", "answers", {"position": position, "value": value}, key)


@contextmanager
def serving(folder, study=None, limits=cases.GENEROUS):
    study = study or study_value(trials=6, checks=1)
    with cases.serving(folder, study, limits) as (answers, port):
        yield Site(answers, port)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """One study for all tests that leave each other's raters alone."""
    with serving(tmp_path_factory.mktemp("served") / "study") as served:
        yield served


def test_rater_answers_a_study_from_the_first_trial_to_the_last(site):
    assert site.json("GET", "study")[1] == {"mode": "pairs", "of": 7, "fps": 25, "references": []}
    key = site.join()
    status, state = site.json("GET", "state", key=key)
    assert (status, state["done"], state["of"]) == (200, 0, 7)
    coming = state["shown"]
    for position in range(7):
        assert state["shown"] == coming
        coming = state["coming"]
        for clip in state["shown"]:
            status, headers, data = site.ask("GET", f"{site.home}/{clip}")
            assert (status, headers["content-type"]) == (200, "image/png")
            name = clip.removeprefix("clips/").removesuffix(".png")
            assert data == clip_file(site.answers.folder, name).read_bytes()
        status, state = site.answer(key, position, position % 2)
        assert (status, state["done"]) == (200, position + 1)
    assert (state["shown"], state["coming"]) == ([], [])
    own = [answer for answer in site.answers.all() if answer.rater == state["code"]]
    assert [answer.value for answer in own] == [0, 1, 0, 1, 0, 1, 0]


def test_answer_replayed_is_confirmed_and_any_other_does_not_stand(site):
    key = site.join()
    assert site.answer(key, 0, 1)[1]["done"] == 1
    assert site.answer(key, 1, 0)[1]["done"] == 2
    status, state = site.answer(key, 0, 1)
    assert (status, state["done"]) == (200, 2)
    assert site.answer(key, 0, 0)[0] == 409
    assert site.answer(key, 3, 0)[0] == 409
    own = [a for a in site.answers.all() if a.rater == state["code"]]
    assert [(answer.position, answer.value) for answer in own] == [(0, 1), (1, 0)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"position=0&value=1",
        b'{"position": 0}',
        b'{"position": 0, "value": 1, "rater": 1}',
        b'{"position": 0, "value": true}',
        b'{"position": 0, "value": 1.0}',
        b'{"position": 0, "value": "1"}',
        b'{"position": 0, "value": 2}',
        b'{"position": 0, "value": -1}',
        b'{"position": 7, "value": 0}',
        b'{"position": -1, "value": 0}',
        b'{"position": 0, "value": 1e400}',
        b'{"position": ' + b"9" * 900 + b', "value": 0}',
        b'{"position": 0, "value": NaN}',
        b"\xff\xfe",
    ],
)
def test_answer_that_is_none_is_400_and_stores_nothing(site, body):
    key = site.join()
    status, headers, text = site.ask("POST", f"{site.home}/answers", body, {"X-Rater": key})
    assert status == 400, text
    assert headers["content-type"] == "application/json"
    assert site.json("GET", "state", key=key)[1]["done"] == 0


def test_rating_out_of_range_is_400(tmp_path):
    with serving(tmp_path / "study", study_value("rating", trials=10, checks=0)) as site:
        key = site.join()
        for value in (0, 11, 10**20):
            assert site.answer(key, 0, value)[0] == 400
        assert site.answer(key, 0, 10)[1]["done"] == 1
        references = site.json("GET", "study")[1]["references"]
        assert len(references) == 8
        assert site.ask("GET", f"{site.home}/{references[0]}")[0] == 200


@pytest.mark.parametrize("key", [None, "", "x" * 32, "' OR 1=1 --" + "x" * 21, "x" * 5000])
def test_rater_without_a_key_of_this_study_is_401(site, key):
    assert site.json("GET", "state", key=key)[0] == 401
    assert site.json("POST", "answers", {"position": 0, "value": 0}, key)[0] == 401


PATHS = [
    "",
    "/",
    "/study.css",
    "/study.js",
    "/study",
    "/state",
    "/raters",
    "/answers",
    "/clips/{clip}.png",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_foreign_token_finds_nothing(site, tmp_path, method, path):
    clip = next(iter(site.answers.clips.values()))[0]
    foreign = make_study(tmp_path / "other", study_value(seed=1))
    foreign.close()
    token = site.answers.token
    given = {"X-Rater": site.join()}
    for other in (foreign.token, token[:-1], token + "A", token.swapcase(), "%00", "%C3%A9", "..."):
        status, headers, body = site.ask(method, f"/{other}{path.format(clip=clip)}", b"{}", given)
        assert status in (404, 405)
        assert body in (b'{"error":"Not Found"}', b'{"error":"Method Not Allowed"}')
        assert token not in str(headers)


def test_nothing_is_served_without_a_token(site):
    for path in ("/", "/docs", "/openapi.json", "/redoc", "/favicon.ico", "/study.js", "//", "/*"):
        assert site.ask("GET", path)[0] == 404


@pytest.mark.parametrize(
    "path",
    [
        "/clips/../study.db",
        "/clips/..%2fstudy.db",
        "/clips/%2e%2e/study.db",
        "/clips/%2e%2e%2fstudy.db",
        "/clips/%252e%252e%252fstudy.db",
        "/clips/..%5cstudy.db",
        "/clips/....//study.db",
        "/clips//etc/passwd",
        "/clips/%2fetc%2fpasswd",
        "/clips/{clip}.png%00.db",
        "/clips/{clip}.png/../../study.db",
        "/clips/{clip}",
        "/clips/",
        "/clips",
        "/clips/0123456789abcdef0123456789abcdef.png",
        "/study.db",
        "/..%2fstudy.db",
        "/../study.db",
        "/index.html",
        "/study_server.py",
        "/%2e%2e/hardware.json",
        "/../../../../etc/passwd",
    ],
)
def test_path_to_anything_but_the_study_is_404(site, path):
    clip = next(iter(site.answers.clips.values()))[0]
    status, _, body = site.ask("GET", site.home + path.format(clip=clip))
    assert (status, body) == (404, b'{"error":"Not Found"}')


def test_body_beyond_the_limit_is_413_however_it_is_sent(site):
    key = site.join()
    path = f"{site.home}/answers"
    padded = b'{"position": 0, "value": 1' + b" " * 2000 + b"}"
    chunks = (padded[i : i + 100] for i in range(0, len(padded), 100))
    for body in (padded, chunks):
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
            assert site.ask("POST", path, body, {"X-Rater": key})[0] == 413
    assert site.json("GET", "state", key=key)[1]["done"] == 0
    fits = b'{"position": 0, "value": 1' + b" " * 900 + b"}"
    assert site.ask("POST", path, fits, {"X-Rater": key})[0] == 200


def test_body_that_does_not_come_is_given_up(tmp_path):
    with serving(tmp_path / "study", limits=Limits(body_s=0.2)) as site:
        key = site.join()
        head = f"POST {site.home}/answers HTTP/1.1\r\nHost: x\r\nX-Rater: {key}\r\n"
        with socket.create_connection(("127.0.0.1", site.port), timeout=20) as connection:
            connection.sendall(f"{head}Content-Length: 30\r\n\r\n".encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def test_every_answer_bears_the_headers_and_no_cookie(site, tmp_path):
    clip = next(iter(site.answers.clips.values()))[0]
    asked = [
        ("GET", "/", 200),
        ("GET", "", 308),
        ("GET", "/study.js", 200),
        ("GET", "/study.css", 200),
        ("GET", f"/clips/{clip}.png", 200),
        ("GET", "/state", 401),
        ("GET", "/nothing", 404),
        ("DELETE", "/answers", 405),
    ]
    for method, path, status in asked:
        found, headers, _ = site.ask(method, site.home + path)
        assert found == status
        assert {name: headers.get(name) for name in HEADERS} == HEADERS
        assert not {"set-cookie", "server", "last-modified", "etag", "allow-origin"} & set(headers)
        kept = "immutable" if path.startswith("/clips") else "no-store"
        assert kept in headers["cache-control"]


def test_page_runs_no_script_and_style_but_its_own_files(site):
    policy = HEADERS["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    _, _, page = site.ask("GET", f"{site.home}/")
    text = page.decode()
    assert re.findall(r"<script[^>]*>([^<]*)<", text) == [""]
    assert re.findall(r'<script[^>]* src="([^"]*)"', text) == ["study.js"]
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|https?:", text)


def test_nothing_a_rater_gets_tells_what_made_a_clip(site):
    names = [source.label for source in site.answers.study.sources]
    told = re.compile("|".join([*map(re.escape, names), "noise", "check", "vgan", "stream"]))
    key = site.join()
    for path in ("", "study.js", "study.css", "study", "state"):
        _, headers, body = site.ask("GET", f"{site.home}/{path}", None, {"X-Rater": key})
        text = body.decode().replace("realistic", "") + str(headers)
        assert not told.search(text), path
    for position in range(7):
        state = site.answer(key, position, 0)[1]
        assert set(state) == {"code", "done", "of", "shown", "coming"}
        assert all(re.fullmatch(r"clips/[0-9a-f]{32}\.png", clip) for clip in state["shown"])


def test_hasty_rater_waits_while_another_goes_on(tmp_path):
    with serving(tmp_path / "study", limits=Limits(rater_burst=3, rater_rate=0.01)) as site:
        hasty, calm = site.join(), site.join()
        assert [site.answer(hasty, n, 0)[0] for n in range(5)] == [200, 200, 200, 429, 429]
        assert site.answer(calm, 0, 1)[0] == 200
        given = {"X-Rater": hasty}
        _, headers, _ = site.ask("GET", f"{site.home}/state", None, given)
        assert 1 <= int(headers["retry-after"]) <= 100


def test_address_that_asks_too_much_waits_whatever_it_asks(tmp_path):
    limits = Limits(address_burst=5, address_rate=0.01)
    with serving(tmp_path / "study", limits=limits) as site:
        paths = ["/", "/a", f"{site.home}/", "/b", f"{site.home}/study", f"{site.home}/study", "/"]
        asked = [site.ask("GET", path, None, {"X-Forwarded-For": path}) for path in paths]
        assert [status for status, _, _ in asked] == [404, 404, 200, 404, 200, 429, 429]
        assert asked[-1][1]["content-security-policy"]


def test_joining_is_limited_by_address_and_in_all(tmp_path):
    with serving(tmp_path / "a", limits=Limits(join_burst=2)) as site:
        assert [site.json("POST", "raters")[0] for _ in range(3)] == [201, 201, 429]
    with serving(tmp_path / "b", limits=Limits(raters=2)) as site:
        assert [site.json("POST", "raters")[0] for _ in range(3)] == [201, 201, 409]
        assert len(site.answers.raters()) == 2


def test_answer_that_cannot_be_stored_is_503_and_not_confirmed(tmp_path):
    with serving(tmp_path / "study") as site:
        key = site.join()
        with sqlite3.connect(site.answers.folder / "study.db") as database:
            database.execute("ALTER TABLE answer RENAME TO lost")
        status, said = site.answer(key, 0, 1)
        assert (status, said) == (503, {"error": "not stored; try again"})
        with sqlite3.connect(site.answers.folder / "study.db") as database:
            database.execute("ALTER TABLE lost RENAME TO answer")
        database.close()
        assert site.answer(key, 0, 1)[1]["done"] == 1


def test_buckets_refill_at_their_rate_and_forget_nothing_that_matters():
    now = [0.0]
    buckets = Buckets(rate=2, burst=3, clock=lambda: now[0])
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.take("b") == 0
    now[0] = 0.5
    assert [buckets.take("a"), buckets.take("a")] == [0, 0.5]
    now[0] = 1000
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_ipv6_neighbours_of_one_network_are_one_address():
    def of(host):
        return address_of({"client": (host, 1)})

    assert of("2001:db8:1:2:aaaa::1") == of("2001:db8:1:2:bbbb::9")
    assert of("2001:db8:1:3::1") != of("2001:db8:1:2::1")
    assert of("192.0.2.1") != of("192.0.2.2")
