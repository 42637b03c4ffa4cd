"""Says what kind of place a picture shows, with a classifier that the user brings.

The model is a TorchScript or ONNX file: (N, 3, 224, 224) float, ImageNet-normalised, goes in,
(N, labels) logits come out; the published Places365 networks are like this. The label file has one
label per line, in the model's order, or lines like `/t/train_station/platform 337`, as
`categories_places365.txt` has.
A scene is a label or everything below it: `train_station` is `train_station/platform`, too.
"""

from __future__ import annotations

import difflib
import hashlib
import io
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from shards.recipe import SceneFilter
from shards.stabilize import ClipRejectedError
from shards.storage import open_store
from shards.video import Image, Picture

INPUT_PX = 224
DECODED_PX = 256
"""Short side of the pictures that are judged; the centre is taken of it, as in training."""
_MEAN = np.array((0.485, 0.456, 0.406), np.float32)
_STD = np.array((0.229, 0.224, 0.225), np.float32)

Scores = npt.NDArray[np.float32]


class Classifier:
    """A loaded model. Raises ValueError for files that are none, or do not fit each other."""

    def __init__(self, filter_: SceneFilter) -> None:
        model, labels = _read(filter_.model), _read(filter_.labels)
        if hashlib.sha256(model + labels).hexdigest() != filter_.digest:
            raise ValueError(f"{filter_.model} or {filter_.labels} changed since the ingest began")
        self.labels = parse_labels(labels, where=filter_.labels)
        self._columns = columns(self.labels, filter_.scene, where=filter_.labels)
        onnx = filter_.model.endswith(".onnx")
        self._run = (_onnx if onnx else _torchscript)(model, filter_.model)

    def scores(self, pictures: list[Image]) -> Scores:
        """(labels,) probabilities, the mean over `pictures` (H, W, 3), uint8."""
        logits = self._run(np.stack([_prepared(picture) for picture in pictures]))
        if logits.shape != (len(pictures), len(self.labels)):
            raise ValueError(
                f"scene model: its output is {logits.shape}, there are {len(self.labels)} labels"
            )
        exp = np.exp(logits - logits.max(1, keepdims=True))
        mean: Scores = (exp / exp.sum(1, keepdims=True)).mean(0)
        return mean

    def of_scene(self, scores: Scores) -> float:
        """The probability of the filter's scene."""
        return float(scores[self._columns].sum())


@lru_cache(maxsize=1)
def classifier(filter_: SceneFilter) -> Classifier:
    """The filter's, loaded once in a process."""
    return Classifier(filter_)


def judged(wanted: SceneFilter | None, pictures: Sequence[Picture]) -> dict[str, Any]:
    """What a clip's provenance says of its scene; nothing where none is wanted.

    Raises ClipRejectedError `other_scene`.
    """
    if wanted is None:
        return {}
    model = classifier(wanted)
    scores = model.scores([p.scene for p in pictures if p.scene is not None])
    score = model.of_scene(scores)
    top = [(model.labels[n], round(float(scores[n]), 4)) for n in (-scores).argsort()[:3]]
    if score < wanted.least:
        said = f"{wanted.scene} {score:.3f}, rather {top[0][0]} {top[0][1]:.3f}"
        raise ClipRejectedError("other_scene", 0, said)
    return {"scene": {"name": wanted.scene, "score": round(score, 4), "top": top}}


def scene_filter(scene: str, least: float, model: str, labels: str) -> SceneFilter:
    """The filter as a value, its files hashed and looked at.

    Raises FileNotFoundError, or ValueError for labels without `scene` or a model nothing can load.
    """
    content = _read(model) + _read(labels)
    digest = hashlib.sha256(content).hexdigest()
    made = SceneFilter(scene=scene, least=least, model=model, labels=labels, digest=digest)
    classifier(made).scores([np.zeros((DECODED_PX, DECODED_PX, 3), np.uint8)])
    return made


def parse_labels(text: bytes, *, where: str) -> list[str]:
    """The labels in the model's order."""
    rows = [line.split() for line in text.decode().splitlines() if line.strip()]
    if not rows:
        raise ValueError(f"{where}: no label in it")
    if all(len(row) == 2 and row[1].isdecimal() for row in rows):
        rows.sort(key=lambda row: int(row[1]))
        if [int(row[1]) for row in rows] != list(range(len(rows))):
            raise ValueError(f"{where}: the numbers of its labels are not 0 to {len(rows) - 1}")
    names = ["_".join(row[:1] if row[-1].isdecimal() else row) for row in rows]
    return [name[3:] if name[0] == "/" and name[2:3] == "/" else name for name in names]


def columns(labels: list[str], scene: str, *, where: str) -> list[int]:
    """Which outputs are `scene`. Raises ValueError naming what is near."""
    found = [n for n, label in enumerate(labels) if f"{label}/".startswith(f"{scene}/")]
    if not found:
        near = difflib.get_close_matches(scene, labels, n=3, cutoff=0.4)
        raise ValueError(
            f"scene {scene!r} is none of the {len(labels)} labels of {where}"
            + (f"; did you mean {' or '.join(near)}?" if near else "")
        )
    return found


def _prepared(picture: Image) -> Scores:
    height, width = picture.shape[:2]
    scale = DECODED_PX / min(height, width)
    if scale != 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    top, left = ((side - INPUT_PX) // 2 for side in picture.shape[:2])
    centre = picture[top : top + INPUT_PX, left : left + INPUT_PX].astype(np.float32) / 255
    normal: Scores = ((centre - _MEAN) / _STD).transpose(2, 0, 1).astype(np.float32)
    return normal


def _torchscript(data: bytes, where: str) -> Callable[[Any], Scores]:
    import torch

    try:
        model = torch.jit.load(io.BytesIO(data), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except RuntimeError:
        raise ValueError(
            f"{where}: not a TorchScript file (torch.jit.save writes one); ONNX must end in .onnx"
        ) from None
    torch.set_num_threads(1)

    def run(batch: Any) -> Scores:
        with torch.inference_mode():
            result: Scores = model(torch.from_numpy(batch)).numpy()
        return result

    return run


def _onnx(data: bytes, where: str) -> Callable[[Any], Scores]:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise ValueError(
            f"{where}: an ONNX model needs onnxruntime: pip install 'video-orchestrator[onnx]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own classes, all below Exception
        raise ValueError(f"{where}: not a model that onnxruntime takes: {error}") from None
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def _read(location: str) -> bytes:
    folder, _, name = location.rpartition("/")
    return open_store(folder or ("/" if location.startswith("/") else ".")).read(name)
