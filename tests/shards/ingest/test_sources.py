"""Finding videos: folders, lists, single files, and what is not there."""

import hashlib
import http.server
import threading

import pytest

from shards import sources
from shards.sources import Source, find_sources, open_source


@pytest.fixture
def folder(tmp_path):
    for name in ("b.mp4", "walk/a.MOV", "walk/deep/c.webm", "notes.md", ".hidden.mp4", ".x/d.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_folder_gives_its_videos_sorted_by_relative_path(folder):
    found = find_sources(str(folder))
    assert [source.name for source in found] == ["b.mp4", "walk/a.MOV", "walk/deep/c.webm"]
    assert [source.bytes for source in found] == [5, 10, 16]
    assert [source.labels for source in found] == [[], ["walk"], ["deep"]]


def test_source_is_the_same_wherever_its_folder_lies(folder, tmp_path_factory):
    moved = tmp_path_factory.mktemp("elsewhere") / "videos"
    before = [(source.name, source.id) for source in find_sources(str(folder))]
    folder.rename(moved)
    assert [(source.name, source.id) for source in find_sources(str(moved))] == before
    assert before[0][1] == hashlib.sha256(b"b.mp4").hexdigest()[:16]


def test_list_names_files_and_urls_one_per_line(folder):
    lines = folder / "list.txt"
    lines.write_text(f"# two\nwalk/a.MOV\n\n{folder}/b.mp4\ngone.mp4\nhttp://x.org/v\nwalk/a.MOV\n")
    found = {source.name: source for source in find_sources(str(lines))}
    assert sorted(found) == sorted([f"{folder}/b.mp4", "gone.mp4", "http://x.org/v", "walk/a.MOV"])
    assert found["walk/a.MOV"].bytes == 10
    assert found["gone.mp4"].bytes is None
    with open_source(found["walk/a.MOV"]) as (file, digest):
        assert file.read() == b"walk/a.MOV"
    assert digest == hashlib.sha256(b"walk/a.MOV").hexdigest()


def test_single_video_is_a_source_by_itself(folder):
    assert [source.name for source in find_sources(str(folder / "b.mp4"))] == ["b.mp4"]


def test_large_file_is_decoded_from_where_it_lies(folder, monkeypatch):
    monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 3)
    with open_source(find_sources(str(folder))[0]) as (file, digest):
        assert file == str(folder / "b.mp4")
    assert digest == hashlib.sha256(b"b.mp4").hexdigest()


def test_url_is_fetched(folder):
    class Here(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Here) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with open_source(Source(name="b", location=f"{url}/b.mp4")) as (file, digest):
            assert file.read() == b"b.mp4"
        with (
            pytest.raises(OSError, match="404"),
            open_source(Source(name="n", location=f"{url}/none.mp4")),
        ):
            pass
        server.shutdown()
    assert digest == hashlib.sha256(b"b.mp4").hexdigest()


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder or list"):
        find_sources(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.md", b"just text"), ("x.txt", b"\n# nothing\n"), ("x.bin", b"\xff\xfe")],
)
def test_source_without_videos_says_what_was_looked_for(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    where = tmp_path if name == "x.md" else tmp_path / name
    with pytest.raises(ValueError, match=r"no videos|neither a folder"):
        find_sources(str(where))
