"""Small studies of made-up clips, without any model."""

import socket
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from orchestrator.pictures import strip
from orchestrator.studying.answers import Answers, clip_file
from orchestrator.studying.limits import Limits
from orchestrator.studying.plan import CHECK, NOISE, REAL, REFERENCE, Source, Study, compared
from orchestrator.studying.server import server

ONE, TWO = "vgan_golf-1", "vgan_golf_one_stream-2"


def study_value(mode="pairs", *, trials=12, checks=2, real=True, stills=False, clips=8, seed=0):
    """A study of two runs, and real clips."""
    labels = [ONE, TWO] + [REAL] * real + [f"still of {run}" for run in (ONE, TWO)] * stills
    return Study(
        mode=mode,
        sources=tuple(Source(label=label, version="0") for label in labels),
        comparisons=compared(2, real=real, stills=stills) if mode == "pairs" else (),
        trials=trials,
        checks=checks,
        clips=clips,
        fps=25.0,
        seed=seed,
    )


def clip_names(study, *, count=None):
    """{source: names}, with those of the checks."""
    labels = [source.label for source in study.sources]
    if study.checks:
        labels += [CHECK, NOISE]
    if study.mode == "rating":
        labels.append(REFERENCE)
    return {
        label: [f"{place:02x}{n:030x}" for n in range(count or study.clips)]
        for place, label in enumerate(labels)
    }


def make_study(folder: Path, study: Study, *, pixels: int = 8) -> Answers:
    """The study on disk, with clips of a colour a source, open."""
    (folder / "clips").mkdir(parents=True)
    source_of = {}
    for place, (label, names) in enumerate(clip_names(study).items()):
        for n, name in enumerate(names):
            clip = np.full((4, pixels, pixels, 3), 40 * place, np.uint8)
            clip[n % 4] += 15
            clip_file(folder, name).write_bytes(strip(clip))
            source_of[name] = label
    Answers.create(folder, study, source_of)
    return Answers(folder)


GENEROUS = Limits(rater_burst=10_000, address_burst=10_000)


@contextmanager
def serving(folder: Path, study: Study, limits: Limits = GENEROUS):
    """(the open study, the port of loopback where it is served)"""
    answers = make_study(folder, study)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        running = server(answers, limits)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield answers, listening.getsockname()[1]
        finally:
            running.should_exit = True
            thread.join()
            answers.close()
