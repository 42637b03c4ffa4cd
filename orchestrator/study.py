"""Asks people which videos are more realistic: `python -m orchestrator.study`.

    python -m orchestrator.study                                  lists the studies there are
    python -m orchestrator.study RUN_A RUN_B --real golf          serves the raters' page
    python -m orchestrator.study RUN_A --real golf --mode rating  1 to 10, one clip at a time
    python -m orchestrator.study --study ID --report              what came out; --export FILE
    python -m orchestrator.study --study ID --study ID --report   table 1 of several scenes

The same call again goes on with the same study, as `--study ID` does. Answers are stored as they
come, in RUNS_ROOT/studies/<id>/study.db, and the page can be stopped at any time. A report also
goes to its runs in MLflow: study/ID/ as artifacts, and what raters thought as val/ metrics.

Exit status: 0 done, 1 the work failed, 2 the call was wrong.
"""

from __future__ import annotations

import argparse
import ipaddress
import signal
import socket
import sys
from contextlib import closing
from pathlib import Path
from types import FrameType

from orchestrator import command
from orchestrator.checkpoint import Checkpoints
from orchestrator.config import require
from orchestrator.overrides import suggest
from orchestrator.site import Site
from orchestrator.studying.answers import DATABASE, Answers
from orchestrator.studying.clips import Material, prepare
from orchestrator.studying.plan import Study
from orchestrator.trained import find_trained
from shards.dataset import Dataset, open_dataset
from shards.quarantine import DataFault
from shards.storage import is_remote, open_store

_BACKLOG = 128


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(prog="python -m orchestrator.study", description=__doc__)
    out.formatter_class = argparse.RawDescriptionHelpFormatter
    out.add_argument("runs", nargs="*", metavar="RUN", help="a run, its checkpoint, or a model")
    out.add_argument("--real", metavar="DATASET", help="real clips compete as well")
    out.add_argument("--stills", action="store_true", help="each run's frozen frames compete too")
    out.add_argument("--mode", choices=["pairs", "rating"], default="pairs")
    out.add_argument("--pairs", type=int, metavar="N", help="of a rater: 40; ratings: 10 a source")
    out.add_argument("--checks", type=int, metavar="N", help="attention checks: one in 8 pairs")
    out.add_argument("--clips", type=int, default=64, metavar="N", help="from each source: 64")
    out.add_argument("--seed", type=int, default=0)
    out.add_argument("--study", action="append", default=[], metavar="ID", help="one there is")
    out.add_argument("--folder", type=Path, help="where studies are kept: RUNS_ROOT/studies")
    out.add_argument("--host", default="127.0.0.1", help="where to listen; loopback by default")
    out.add_argument("--port", type=int, default=8090, help="0 takes a free one")
    out.add_argument("--export", metavar="CSV", help="write all answers there; - is the terminal")
    out.add_argument("--report", action="store_true", help="print the tables")
    return out


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    given = parser().parse_intermixed_args(argv)
    site = Site.from_environment()
    try:
        root = _root(given.folder, site)
        if not given.runs and not given.study:
            print(listing(root))
            return 0
        if given.report or given.export:
            folders = _folders(given, root, site)
            _tell(folders, site, export=given.export, report=given.report)
            return 0
        with _listen(given.host, given.port) as listening:  # before the clips, which take a while
            folder, *more = _folders(given, root, site)
            if more:
                raise ValueError("--study: the page serves one study; several go with --report")
            with closing(Answers(folder)) as answers:
                serve(answers, listening)
    except (ValueError, OSError) as error:
        return command.wrong_call(error)
    except DataFault as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def listing(root: Path) -> str:
    """A line for every study below `root`."""
    lines = []
    for folder in _existing(root):
        with closing(Answers(folder)) as answers:
            raters, rows = len(answers.raters()), len(answers.all())
            lines.append(f"{_described(answers.study)}: {raters} raters, {rows} answers")
    return "\n".join(lines) or f"no study at {root}; start one with RUN_A RUN_B"


def serve(answers: Answers, listening: socket.socket) -> None:
    """The raters' page, until SIGINT or SIGTERM. Requests that came are answered first."""
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(_described(answers.study))
    print(f"  raters open  http://{shown}:{port}/{answers.token}/")
    print(f"  answers      {answers.folder / DATABASE}")
    print(f"  results      python -m orchestrator.study --study {answers.study.id} --report")
    if not ipaddress.ip_address(host).is_loopback:
        print("  not only this machine can open it, and it is not encrypted: see docs/study.md")
    print("Ctrl-C ends it; nothing is lost.", flush=True)

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    from orchestrator.studying.limits import Limits
    from orchestrator.studying.server import server

    signal.signal(signal.SIGTERM, interrupt)  # uvicorn raises it again once it has shut down
    try:
        server(answers, Limits()).run(sockets=[listening])
    except KeyboardInterrupt:
        print("stopped", flush=True)


def _root(folder: Path | None, site: Site) -> Path:
    if folder is not None:
        return folder.expanduser().absolute()
    if is_remote(site.runs_root):
        raise ValueError(
            f"RUNS_ROOT={site.runs_root}: answers are kept in SQLite, which needs a disk of this "
            "machine; name a folder on it with --folder"
        )
    return Path(site.runs_root) / "studies"


def _folders(given: argparse.Namespace, root: Path, site: Site) -> list[Path]:
    """The studies that the call means; one of runs is made where it is to be served."""
    if given.runs and given.study:
        raise ValueError("--study: names a study that there is; give either RUNs or --study")
    if given.study:
        names = [folder.name for folder in _existing(root)]
        wrong = next((each for each in given.study if each not in names), None)
        if wrong is not None:
            raise ValueError(f"--study {wrong}: no such study at {root}{suggest(wrong, names)}")
        return [root / each for each in given.study]
    material = _material(given, site)
    study = material.study(
        given.mode, trials=given.pairs, checks=given.checks, clips=given.clips, seed=given.seed
    )
    folder = root / study.id
    if (given.report or given.export) and not (folder / DATABASE).is_file():
        raise ValueError(
            f"{_described(study)}: nobody was asked yet. Serve it by the same call without "
            "--report and --export; without any arguments the studies there are get listed"
        )
    if not (folder / DATABASE).is_file():
        print(f"making the clips of study {study.id}", flush=True)
    return [prepare(root, study, material, site)]


def _material(given: argparse.Namespace, site: Site) -> Material:
    runs = tuple(find_trained(text, site) for text in given.runs)
    dataset: Dataset | None
    if given.real is not None:
        named = "/" in given.real
        dataset = open_dataset(given.real if named else site.dataset(given.real))
    else:
        try:
            dataset = open_dataset(site.dataset(runs[0].record["data"]["name"]))
        except (OSError, ValueError):  # only the checks miss it
            dataset = None
    return Material(runs=runs, dataset=dataset, real=given.real is not None, stills=given.stills)


def _existing(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.glob(f"[!.]*/{DATABASE}"))


def _described(study: Study) -> str:
    against = ", ".join(source.label for source in study.sources)
    return f"study {study.id}: {study.mode} of {against}; {study.length} trials a rater"


def _listen(host: str, port: int) -> socket.socket:
    """Raises ValueError naming what is wrong with the address."""
    require(0 <= port <= 65535, "--port", port, "from 0 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ValueError(
            f"cannot listen on {host} port {port}: {error.strerror}; give another --host or --port"
        ) from None


def _tell(folders: list[Path], site: Site, *, export: str | None, report: bool) -> None:
    from orchestrator import postscript
    from orchestrator.studying import report as reporting
    from orchestrator.studying import table as tables

    reports, table = [], ""
    for number, folder in enumerate(folders):
        with closing(Answers(folder)) as answers:
            rows = answers.all()
            text = reporting.to_csv(answers.study, rows)
            table += text if number == 0 else text.partition("\n")[2]
            reports.append(reporting.report(answers.study, rows))
        if report:
            files = {"answers.csv": text, "report.txt": tables.as_text(reports[-1])}
            told = {f"study/{folder.name}/{name}": t.encode() for name, t in files.items()}
            for run, metrics in reporting.by_run(reports[-1]).items():
                steps = Checkpoints(open_store(site.run(run)), keep=2).steps() or [0]
                postscript.add(site, run, step=steps[-1], metrics=metrics, files=told)
    if export == "-":
        print(table, end="")
    elif export is not None:
        Path(export).write_text(table)
    if report and len(reports) == 1:
        print(tables.as_text(reports[0]))
    elif report:
        print(tables.side_by_side(reports))


if __name__ == "__main__":
    sys.exit(main())
