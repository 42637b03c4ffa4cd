"""Features of clips in which a Frechet distance is taken: of our own classifier, or of an I3D.

Only the second kind's distance is FVD; the first is the Frechet distance in the features of the run
that it names, and can be compared only with distances in the features of the same run.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from orchestrator.conditions import Tell, teller
from orchestrator.loop import to_video
from orchestrator.pictures import Pixels
from orchestrator.trained import Trained
from shards.dataset import Dataset

FVD_PX = 224
_OWN = ("rescale", "resize", "return_features")  # options of the published I3D TorchScript


@dataclass(frozen=True, kw_only=True)
class Features:
    """A way from clips to features. metric: the name of the distance in them. how: what they are.

    of: uint8 (N, T, H, W, 3), a part of the clips at a time, to float32 (N, K) on the CPU.
    opinion: of a classifier, the same clips' probabilities. truth: what tells a dataset's clips'
    true classes; ValueError where it has other ones.
    """

    metric: str
    how: str
    of: Callable[[Pixels], Tensor]
    opinion: Callable[[Pixels], Tensor] | None = None
    truth: Callable[[Dataset], Tell] | None = None


def of_classifier(trained: Trained) -> Features:
    """The mean over time and place of a classifier's last features, before dropout.

    Raises ValueError for a run that is no classifier.
    """
    if trained.kind != "classifier":
        raise ValueError(f"--classifier: {trained.name} is a {trained.kind}, not a classifier")
    layers = trained.learner.get_submodule("classifier.features")

    def of(clips: Pixels) -> Tensor:
        with torch.no_grad():
            features_bcthw = layers(to_video(clips, trained.device))
        mean_bk: Tensor = features_bcthw.mean((2, 3, 4)).float().cpu()
        return mean_bk

    def opinion(clips: Pixels) -> Tensor:
        return trained.learner.predict(to_video(clips, trained.device)).cpu()

    return Features(
        opinion=opinion,
        truth=lambda dataset: teller(trained.learner, dataset),
        metric="frechet_classifier",
        how=f"Frechet distance in the features of {trained.name} at step {trained.step}: its last "
        "layer before the classes, averaged over time and place",
        of=of,
    )


def of_i3d(path: str, device: torch.device) -> Features:
    """The I3D of FVD, from a TorchScript file of the user's.

    One with the options `rescale`, `resize` and `return_features` (the port that StyleGAN-V
    publishes) gets float levels 0 to 255 at the clips' size and does the rest itself; any other
    gets floats in [-1, 1] at 224 x 224 (bilinear, no antialias), as (N, 3, T, H, W).
    Raises ValueError for a file that is none, or whose output is not finite features (N, K).
    """
    model, data = _load(path, device)
    names = {argument.name for argument in model.forward.schema.arguments}
    own = all(name in names for name in _OWN)

    def of(clips: Pixels) -> Tensor:
        try:
            with torch.no_grad():
                if own:
                    levels = torch.from_numpy(clips).permute(0, 4, 1, 2, 3).float().to(device)
                    found = model(levels, rescale=True, resize=True, return_features=True)
                else:
                    found = model(_scaled(clips, device))
        except RuntimeError as error:
            reason = str(error).strip().split("\n")[-1]
            raise ValueError(
                f"--fvd-weights {path}: does not take clips of {clips.shape}: {reason}"
            ) from None
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(clips):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"--fvd-weights {path}: of {len(clips)} clips it makes {shape}, not (clips, K)"
            )
        return found.float().cpu()

    treated = (
        "levels 0 to 255 at the clips' size, rescaled and resized by the model itself"
        if own
        else f"[-1, 1] at {FVD_PX} x {FVD_PX}, bilinear without antialias"
    )
    digest = hashlib.sha256(data).hexdigest()
    return Features(
        metric="fvd",
        how=f"FVD with the weights {Path(path).name} (sha256 {digest[:12]}), {treated}",
        of=of,
    )


def _load(path: str, device: torch.device) -> tuple[Any, bytes]:
    """(the model, the file's bytes)."""
    try:
        data = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise ValueError(f"--fvd-weights {path}: cannot be read: {error.strerror}") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the published weights are TorchScript
        try:
            model = torch.jit.load(Path(path).expanduser(), map_location=device)  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError):
            raise ValueError(
                f"--fvd-weights {path}: not a TorchScript file; FVD needs I3D as TorchScript, such "
                "as the i3d_torchscript.pt of StyleGAN-V"
            ) from None
    return model.eval(), data


def _scaled(clips: Pixels, device: torch.device) -> Tensor:
    video_bcthw = to_video(clips, device)
    count, colours, frames = video_bcthw.shape[:3]
    flat = video_bcthw.transpose(1, 2).flatten(0, 1)
    large = F.interpolate(flat, (FVD_PX, FVD_PX), mode="bilinear", align_corners=False)
    return large.view(count, frames, colours, FVD_PX, FVD_PX).transpose(1, 2)
