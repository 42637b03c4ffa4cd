"""Measures trained models by their kind: `python -m orchestrator.evaluate RUN [RUN ...]`.

    python -m orchestrator.evaluate vgan_golf-0a1b2c3d vgan_golf_one_stream-4e5f6071
    python -m orchestrator.evaluate vgan_golf-0a1b2c3d --classifier ucf101_finetune-8899aabb
    python -m orchestrator.evaluate vgan_golf-0a1b2c3d --fvd-weights i3d_torchscript.pt
    python -m orchestrator.evaluate ucf101_finetune-8899aabb --data ucf101_test01
    python -m orchestrator.evaluate sync_draw_one_digit_captions-1a2b3c4d \
        --data bouncing_one_unseen --reader bouncing_reader_one-5e6f7081
    python -m orchestrator.evaluate --curve ucf101_finetune-... ucf101_random-... ...

Generating models: how still backgrounds are and how much they flicker, beside real clips where
there are some; the Frechet distance in a classifier's features, or, with I3D's weights, FVD. An
autoencoder also: how well it gives clips back; a future model: how far it is from what came. A
classifier: accuracy by source video, the mean over several runs (the splits), and with --curve
against the share of labels. A model that draws: its bound on clips it has not seen, and with
--reader whether its videos show what captions say.

RUN is as for orchestrator.generate. --data is by default the dataset that a run was trained on, if
it is here; of classifiers and models that draw the one with `test` for `train` in its name. Results
go to the run's MLflow metrics (`val/*`) and artifacts, its evaluation.json, and to --out.

Exit status: 0 done, 1 the work failed, 2 the call was wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from orchestrator import command, figures, postscript
from orchestrator.clips import open_data
from orchestrator.conditions import class_names
from orchestrator.config import require
from orchestrator.curve import Curve, Result, curve_of
from orchestrator.evaluation import evaluate
from orchestrator.features import Features, of_classifier, of_i3d
from orchestrator.findings import Evaluation, Source
from orchestrator.site import Site
from orchestrator.trained import Trained, find_trained
from shards.read import DataFault
from shards.storage import open_store

FILE = "evaluation.json"  # in a run's store
_REAL, _ERROR = "real_", "_error"
_TESTED = ("classifier", "drawing", "reader")  # with clips that they have not learned from


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(prog="python -m orchestrator.evaluate", description=__doc__)
    out.formatter_class = argparse.RawDescriptionHelpFormatter
    out.add_argument("runs", nargs="+", metavar="RUN", help="runs, ids, paths, registered models")
    out.add_argument("--data", metavar="NAME", help="the clips to measure with")
    out.add_argument("--clips", type=int, default=256, metavar="N", help="of each, at most: 256")
    out.add_argument("--classifier", metavar="RUN", help="a Frechet distance in its features")
    out.add_argument("--fvd-weights", metavar="PATH", help="I3D as TorchScript: FVD")
    out.add_argument("--begun", action="store_true", help="clips go on from real first frames")
    out.add_argument("--reader", metavar="RUN", help="what does a video drawn from a caption show?")
    out.add_argument("--draws", type=int, default=1, metavar="N", help="importance-weighted bound")
    out.add_argument("--curve", action="store_true", help="accuracy against the share of labels")
    out.add_argument("--out", type=Path, metavar="DIR", help="pictures; default: var/evaluation")
    out.add_argument("--json", action="store_true", help="one JSON object on the last line")
    return out


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    given = parser().parse_intermixed_args(argv)
    out = given.out or Path("var/evaluation")
    try:
        done, curve = _work(given, Site.from_environment(), out)
    except DataFault as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        return command.wrong_call(error)
    print(table(done) if curve is None else curve_table(curve))
    for name, text in dict.fromkeys(item for each in done for item in each.how.items()):
        print(f"{name}: {text}")
    print(f"pictures and {FILE} in {out.absolute()}")
    if given.json:
        result: dict[str, Any] = {"evaluations": [each.plain() for each in done]}
        if curve is not None:
            result["curve"] = curve.plain()
        elif mean := mean_over_runs(done):
            result["mean"] = mean
        print(json.dumps(result))
    return 0


def mean_over_runs(done: Sequence[Evaluation]) -> dict[str, float]:
    """The plain means over several classifiers, one a split; empty for anything else."""
    if len(done) < 2 or any(each.kind != "classifier" for each in done):
        return {}
    return {name: fmean(each.metrics[name] for each in done) for name in done[0].metrics}


def table(done: Sequence[Evaluation]) -> str:
    """A row a metric with its standard error, a column a run; real clips and the mean at last."""
    columns = {each.run: each.metrics for each in done}
    for each in done:
        real = {k.removeprefix(_REAL): v for k, v in each.metrics.items() if k.startswith(_REAL)}
        if real and each.data is not None:
            columns[f"real: {each.data['name']}"] = real
    if mean := mean_over_runs(done):
        columns[f"mean of {len(done)}"] = {k: v for k, v in mean.items() if _ERROR not in k}
    measured = (name.removeprefix(_REAL) for each in done for name in each.metrics)
    names = [name for name in dict.fromkeys(measured) if not name.endswith(_ERROR)]
    rows = [["", *columns]]
    rows += [[name, *(_cell(metrics, name) for metrics in columns.values())] for name in names]
    return _lines(rows)


def curve_table(curve: Curve) -> str:
    """A row a share of the labels, a column a way to train: accuracy, deviation, and runs."""
    shares = sorted({point.fraction for series in curve.series for point in series.points})
    columns = {series.label: series.points for series in curve.series}
    if curve.gain:
        columns["fine-tuned / random"] = curve.gain
    rows = [["share of the labels", *columns]]
    for share in shares:
        cells = [f"{share:g}"]
        for points in columns.values():
            here = next((point for point in points if point.fraction == share), None)
            cells.append(
                "-"
                if here is None
                else f"{here.mean:.3f} +- {here.std:.3f} ({len(here.runs)} runs)"
            )
        rows.append(cells)
    return _lines(rows)


def _lines(rows: Sequence[Sequence[str]]) -> str:
    width = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, width, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _cell(metrics: dict[str, float], name: str) -> str:
    if name not in metrics:
        return "-"
    error = metrics.get(name + _ERROR)
    return f"{metrics[name]:.4g}" + (f" +- {error:.2g}" if error else "")


def _work(
    given: argparse.Namespace, site: Site, out: Path
) -> tuple[list[Evaluation], Curve | None]:
    require(2 <= given.clips <= 100_000, "--clips", given.clips, "from 2 to 100000")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    features: list[Features] = []
    if given.classifier:
        features.append(of_classifier(_loaded(given.classifier, site, device)))
    if given.fvd_weights:
        features.append(of_i3d(given.fvd_weights, device))
    require(1 <= given.draws <= 10_000, "--draws", given.draws, "from 1 to 10000")
    reader = _loaded(given.reader, site, device) if given.reader else None
    done: list[Evaluation] = []
    results: list[Result] = []
    for run in given.runs:
        trained = _loaded(run, site, device)
        if given.curve and trained.kind != "classifier":
            raise ValueError(f"--curve: {trained.name} is no classifier ({trained.kind})")
        if features and trained.kind == "classifier":
            raise ValueError(f"{trained.name} is a classifier: it has no clips for a distance")
        source = _source(trained, given.data, site)
        if features and source is None:
            raise ValueError(
                f"{features[0].metric} is a distance from real clips: give --data NAME"
            )
        found = _kept(trained, source) if given.curve else None
        if found is None:
            found = evaluate(
                trained,
                source,
                given.clips,
                features,
                reader=reader,
                draws=given.draws,
                begun=given.begun,
            )
            _keep(found, trained, site, out)
        done.append(found)
        if given.curve:
            results.append(_result(trained, found))
    if not given.curve:
        return done, None
    measured = {each.data["version"]: each.data["name"] for each in done if each.data is not None}
    if len(measured) > 1:
        names = ", ".join(sorted(measured.values()))
        raise ValueError(f"--curve: measured with different clips ({names}); give --data NAME")
    curve = curve_of(results)
    _draw(curve, done, site, out)
    return done, curve


def _loaded(run: str, site: Site, device: torch.device) -> Trained:
    trained = find_trained(run, site)
    trained.learner.to(device)
    return trained


def _source(trained: Trained, name: str | None, site: Site) -> Source | None:
    """The clips to measure with; None where none were named and the training data is not here."""
    learned = trained.record["data"]["name"]
    if trained.kind in _TESTED and name is None:
        name = learned.replace("train", "test").replace("_all", "_test")
        if name == learned and trained.kind == "drawing":
            name = None
        elif name == learned:
            raise ValueError(
                f"{trained.name} was trained on {learned}: name the clips to test it with, --data "
                "NAME (--data of the same name measures what it remembers)"
            )
    try:
        dataset = open_data(name or learned, site, trained.model.clip_shape)
    except (ValueError, OSError):
        if name is not None:
            raise
        print(f"no dataset {learned} at {site.shards_root} (SHARDS_ROOT): no real clips beside")
        return None
    if trained.kind == "classifier":
        _require_same_classes(trained, class_names(trained.learner, dataset))
    known = trained.data_version == dataset.version or (name or learned) == learned
    if known:
        print(f"{trained.name} was trained on these clips, {learned}")
    return Source(name=name or learned, dataset=dataset, trained_on=known)


def _require_same_classes(trained: Trained, classes: list[str]) -> None:
    """The classes that it was trained on must be the clips': a place means a name."""
    mine = trained.classes
    if len(mine) == len(classes) and mine != classes:
        odd = sorted(set(classes) ^ set(mine))
        raise ValueError(
            f"{trained.name} knows the classes of {trained.record['data']['name']}; the clips have "
            f"others: {', '.join(odd[:4])} are in one of them only"
        )


def _kept(trained: Trained, source: Source | None) -> Evaluation | None:
    """The run's evaluation of the same checkpoint with the same clips, if it has one."""
    if trained.location is None or source is None:
        return None
    try:
        found = Evaluation(**json.loads(open_store(trained.location).read(FILE)))
    except (FileNotFoundError, TypeError, ValueError):
        return None
    same = found.data is not None and found.data["version"] == source.dataset.version
    return found if same and found.step == trained.step else None


def _keep(found: Evaluation, trained: Trained, site: Site, out: Path) -> None:
    """To the run's folder, to `out`, and to MLflow."""
    text = json.dumps(found.plain(), indent=1).encode()
    if trained.location is not None:
        open_store(trained.location).write(FILE, text)
    _write(out / trained.name, {FILE: text} | found.files)
    postscript.add(
        site,
        trained.name,
        step=trained.step,
        metrics={f"val/{name}": value for name, value in found.metrics.items()},
        files={f"evaluation/{name}": data for name, data in ({FILE: text} | found.files).items()},
    )


def _result(trained: Trained, found: Evaluation) -> Result:
    """A classifier's point of the curve."""
    record = trained.record
    return Result(
        run=trained.name,
        mode=record["model"].get("mode", record["name"]),
        begun=(record["init_from"] or "").rpartition("-")[0] or None,
        fraction=record["data"]["fraction"],
        seed=record["seed"],
        accuracy=found.metrics["accuracy"],
        chance=found.metrics["chance"],
    )


def _draw(curve: Curve, done: Sequence[Evaluation], site: Site, out: Path) -> None:
    text = json.dumps(curve.plain(), indent=1).encode()
    files = {"curve.json": text, "curve.png": figures.accuracy_curve(curve)}
    _write(out, files)
    for each in done:
        told = {f"evaluation/{name}": data for name, data in files.items()}
        postscript.add(site, each.run, step=each.step, files=told, quiet=True)


def _write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    sys.exit(main())
