"""The code's diff, as git itself takes it back."""

import subprocess

from orchestrator.provenance import code_diff, packages, read_packages, write_packages


def _git(folder, *arguments):
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


def test_code_diff_applied_to_the_commit_gives_changed_new_and_deleted_files_back(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in ("models", "docs"):
        (here / folder).mkdir(parents=True)
    (here / "models/a.py").write_text("one\n")
    (here / "models/gone.py").write_text("gone\n")
    _git(here, "init", "-q")
    _git(here, "add", ".")
    _git(here, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x")
    _git(tmp_path, "clone", "-q", str(here), str(there))
    assert code_diff(here) == b""
    (here / "models/a.py").write_text("two\n")
    (here / "models/new name.py").write_text("new\n")
    (here / "models/gone.py").unlink()
    (here / "docs/secret.txt").write_text("not code\n")
    (tmp_path / "diff").write_bytes(code_diff(here))
    _git(there, "apply", str(tmp_path / "diff"))
    assert {path.name: path.read_text() for path in (there / "models").iterdir()} == {
        "a.py": "two\n",
        "new name.py": "new\n",
    }
    assert not (there / "docs").exists()


def test_code_diff_outside_a_checkout_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "alone").mkdir()
    assert code_diff(tmp_path / "alone") is None


def test_packages_are_read_as_they_were_written():
    assert packages()["torch"].startswith("2.")
    assert read_packages(write_packages().decode()) == packages()
