"""What MLflow holds of many runs, in few requests: records, histories by columns, last samples.

A history is asked for as a chart of so many columns shows it: of every column of steps its least,
greatest and mean value. MLflow's database counts that itself, exactly, in one statement for 500
runs: 1,000 histories of 10,000 points take 20 s from SQLite, where MLflow's own sampling query
takes 2 s for each. A server gives at most 2,500 points of a history, evenly spaced, of 100 runs a
request; the columns are made of those.
"""

from __future__ import annotations

import difflib
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from orchestrator.comparing.curves import Columns, columns_of
from orchestrator.mlflow_runs import (
    EXPERIMENT_TAG,
    RUN_TAG,
    asking,
    client_of_existing,
    last_steps,
)

SWEEP_TAG, KIND_TAG = "orchestrator.sweep", "orchestrator.kind"
_TOGETHER, _SERVED_TOGETHER, _SERVED_POINTS = 500, 100, 2500
_SAMPLES = re.compile(r"samples/step-(\d+)\.gif")
_Answer = TypeVar("_Answer")
_HUGE = 1e300  # MLflow keeps infinities as the largest float


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run as MLflow has it. params: what decides its result, by dotted path, as text. metrics:
    the last value of each, steps: at which step. seconds: from its start to its end, or to now."""

    id: str
    name: str
    experiment: str
    status: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    steps: Mapping[str, int]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a user named. sweep: its own run, of the first sweep that was named."""

    runs: list[RunRecord]
    sweep: RunRecord | None


class Histories:
    """MLflow at `uri`, for questions about many runs.

    Everything raises OSError when MLflow does not answer.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._mlflow: Any = client_of_existing(uri)
        self._experiments: list[str] | None = None

    def find(self, texts: Sequence[str]) -> Found:
        """The runs that are meant: each text a run's name or MLflow id, or a sweep, its whole name
        or a registered one, of which the newest counts. Once each, in this order.

        Raises ValueError naming the nearest match.
        """
        found: dict[str, RunRecord] = {}
        sweep: RunRecord | None = None
        for text in texts:
            parent = self._sweep(text)
            if parent is not None:
                runs = self._search(f"tags.`{SWEEP_TAG}` = '{parent.name}'")
                trials = [run for run in runs if KIND_TAG not in run.tags]
                if not trials:
                    raise ValueError(f"{text}: the sweep {parent.name} has no trial in MLflow yet")
                trials.sort(key=lambda run: int(run.tags.get("orchestrator.trial", 0)))
                sweep = sweep or parent
            else:
                trials = [self._run(text)]
            found |= {run.id: run for run in trials}
        return Found(runs=list(found.values()), sweep=sweep)

    def columns(
        self, runs: Sequence[RunRecord], metric: str, width: int
    ) -> Iterator[tuple[str, Columns]]:
        """(run id, its history in columns of `width` steps) of the runs that told the metric.

        Values that are not finite are left out.
        """
        ids = [run.id for run in runs if metric in run.metrics]
        served = self._uri.startswith("http")
        count = _SERVED_TOGETHER if served else _TOGETHER
        ask = self._served if served else self._counted
        for start in range(0, len(ids), count):
            yield from self._told(partial(ask, ids[start : start + count], metric, width))

    def samples(self, run: RunRecord) -> tuple[int, bytes] | None:
        """(step, GIF) of the newest samples at fixed noise that the run has shown."""

        def newest() -> tuple[int, bytes] | None:
            names = [each.path for each in self._mlflow.list_artifacts(run.id, "samples")]
            steps = [(int(m[1]), name) for name in names if (m := _SAMPLES.fullmatch(name))]
            if not steps:
                return None
            step, name = max(steps)
            return step, self._file(run, name)

        return self._told(newest)

    def real_clips(self, run: RunRecord) -> bytes | None:
        """The GIF of the real clips that the run has shown."""

        def real() -> bytes | None:
            names = [each.path for each in self._mlflow.list_artifacts(run.id, "real")]
            return self._file(run, "real/clips.gif") if "real/clips.gif" in names else None

        return self._told(real)

    def _file(self, run: RunRecord, name: str) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = self._mlflow.download_artifacts(run.id, name, folder)
            return Path(path).read_bytes()

    def _sweep(self, text: str) -> RunRecord | None:
        if not re.fullmatch(r"[\w.-]+", text):
            return None
        kind = f"tags.`{KIND_TAG}` = 'sweep'"
        exact = self._search(f"{kind} and tags.`{SWEEP_TAG}` = '{text}'")
        if exact:
            return exact[0]
        of_name = self._search(f"{kind} and tags.`{SWEEP_TAG}` LIKE '{text}-%'")
        named = re.compile(re.escape(text) + r"-[0-9a-f]{8}(-r\d+)?")
        return next((run for run in of_name if named.fullmatch(run.name)), None)

    def _run(self, text: str) -> RunRecord:
        found: list[RunRecord] = []
        if re.fullmatch("[0-9a-f]{32}", text):
            found = self._search(f"attributes.run_id = '{text}'")
        elif re.fullmatch(r"[\w.-]+", text):
            found = self._search(f"tags.`{RUN_TAG}` = '{text}'")
        if found:
            return found[0]
        there = self._search("")
        names = {run.name for run in there} | {run.tags.get(SWEEP_TAG, run.name) for run in there}
        begin = [name for name in sorted(names) if text and name.startswith(text)]
        near = begin or difflib.get_close_matches(text, names, n=3)
        hint = f"; did you mean {' or '.join(map(repr, near[:3]))}?" if near else ""
        none = "" if names else "; it has no run at all"
        raise ValueError(
            f"MLflow has no run and no sweep {text!r}{none}{hint}. "
            "RUN is a run's name, an MLflow run id, or a path; SWEEP a sweep's name"
        )

    def _search(self, condition: str) -> list[RunRecord]:
        """Our runs that meet MLflow's `condition`, the newest first."""

        def pages() -> list[RunRecord]:
            if self._mlflow is None:
                return []
            if self._experiments is None:
                experiments = self._mlflow.search_experiments()
                self._experiments = [each.experiment_id for each in experiments]
            out: list[RunRecord] = []
            token: str | None = None
            while self._experiments:
                page = self._mlflow.search_runs(
                    self._experiments, condition, max_results=1000, page_token=token
                )
                out += [_record(run) for run in page if RUN_TAG in run.data.tags]
                token = page.token
                if not token:
                    break
            return out

        return self._told(pages)

    def _told(self, ask: Callable[[], _Answer]) -> _Answer:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with asking(self._uri):
                return ask()
        except SQLAlchemyError as error:
            reason = str(error).split("\n")[0][:200]
            raise OSError(f"MLflow's database does not answer: {reason}") from None

    def _counted(self, ids: Sequence[str], metric: str, width: int) -> list[tuple[str, Columns]]:
        """By the database."""
        from mlflow.store.tracking.dbmodels.models import SqlMetric
        from sqlalchemy import func, select

        statement = (
            select(
                SqlMetric.run_uuid,
                func.min(SqlMetric.step),
                func.max(SqlMetric.step),
                func.min(SqlMetric.value),
                func.max(SqlMetric.value),
                func.avg(SqlMetric.value),
            )
            .where(
                SqlMetric.run_uuid.in_(ids),
                SqlMetric.key == metric,
                SqlMetric.is_nan.is_(False),
                SqlMetric.value < _HUGE,
                SqlMetric.value > -_HUGE,
            )
            .group_by(SqlMetric.run_uuid, SqlMetric.step.op("/")(width))
            .order_by(SqlMetric.run_uuid, func.min(SqlMetric.step))
        )
        with self._mlflow._tracking_client.store.ManagedSessionMaker() as session:
            rows = session.execute(statement).all()
        return [
            (run, Columns.of(np.array([row[1:] for row in part], np.float64).T))
            for run, part in _by_first(rows)
        ]

    def _served(self, ids: Sequence[str], metric: str, width: int) -> list[tuple[str, Columns]]:
        """By a server's own endpoint, through MLflow's client of REST with its credentials."""
        from mlflow.utils.rest_utils import http_request, verify_rest_response

        endpoint = "/api/2.0/mlflow/metrics/get-history-bulk-interval"
        params = {"run_ids": list(ids), "metric_key": metric, "max_results": _SERVED_POINTS}
        credentials = self._mlflow._tracking_client.store.get_host_creds()
        answer = http_request(credentials, endpoint, "GET", params=params, timeout=120)
        told = verify_rest_response(answer, endpoint).json().get("metrics", [])
        points = sorted((p["run_id"], int(p.get("step", 0)), float(p["value"])) for p in told)
        return [
            (run, columns_of(np.array([p[1] for p in part]), np.array([p[2] for p in part]), width))
            for run, part in _by_first(points)
        ]


def _by_first(rows: Iterable[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Rows of one run after another, by run."""
    for run, part in groupby(rows, key=lambda row: row[0]):
        yield run, list(part)


def _record(run: Any) -> RunRecord:
    tags = dict(run.data.tags)
    ended = run.info.end_time or time.time() * 1000
    return RunRecord(
        id=run.info.run_id,
        name=tags[RUN_TAG],
        experiment=tags.get(EXPERIMENT_TAG, ""),
        status=run.info.status,
        params=dict(run.data.params),
        tags=tags,
        metrics=dict(run.data.metrics),
        steps=last_steps(run),
        seconds=max(0.0, (ended - run.info.start_time) / 1000),
    )
