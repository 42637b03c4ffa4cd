"""Generates from a trained model, as GIF, MP4 and stills: `python -m orchestrator.generate RUN`.

    python -m orchestrator.generate vgan_golf-0a1b2c3d                  16 clips
    python -m orchestrator.generate vgan_golf --count 64 --seed 100     the registered model
    python -m orchestrator.generate var/runs/NAME/checkpoints/00000500
    python -m orchestrator.generate vgan_future_golf --image photo.jpg  how a picture goes on
    python -m orchestrator.generate vgan_future_golf --data golf        beside how clips went on
    python -m orchestrator.generate RUN --caption "digit 3 is moving up and down"
    python -m orchestrator.generate video_vae_weizmann --attributes action=walk,run person=daria
    python -m orchestrator.generate video_vae_weizmann --image photo.jpg --attributes action=run

Pictures are first frames that clips go on from, in turn, one a clip; so are captions, and so are
attributes, each --attributes those of a clip. What it does not name is free: drawn with the clip,
or told from its first frame. Values after one another, as walk,run, are of parts of the clip that
are as long as each other.

RUN is a run's name, an MLflow run id, the path of a run or a checkpoint, or a registered model:
NAME or models:/NAME/VERSION. Clip i is a function of the weights and of seed + i alone. It runs on
the CPU and needs no training data. What it writes is in --out and in the run's MLflow artifacts.

Exit status: 0 done, 2 the call was wrong.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from orchestrator import command, drawings, pictures, postscript
from orchestrator.clips import open_data, some_clips
from orchestrator.conditions import Array, frame_values
from orchestrator.config import require
from orchestrator.pictures import Pixels
from orchestrator.site import Site
from orchestrator.trained import Trained, find_trained
from shards.still import read_still

_MOST = 1024  # clips of one call; more are more calls, with other seeds
_SHOWN, _APART = 64, 4  # clips in a grid, and in a sheet that takes them apart


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(prog="python -m orchestrator.generate", description=__doc__)
    out.formatter_class = argparse.RawDescriptionHelpFormatter
    out.add_argument("run", metavar="RUN", help="a run, its id or path, or a registered model")
    out.add_argument("--count", type=int, default=16, metavar="N", help="clips (default 16)")
    out.add_argument("--seed", type=int, default=0, metavar="S", help="of the first clip: 0")
    out.add_argument(
        "--image", action="append", default=[], metavar="FILE", help="a first frame; repeatable"
    )
    out.add_argument("--data", metavar="NAME", help="a dataset whose clips' first frames they are")
    out.add_argument(
        "--caption", action="append", default=[], metavar="TEXT", help="what to draw; repeatable"
    )
    out.add_argument(
        "--attributes",
        action="append",
        nargs="+",
        default=[],
        metavar="NAME=VALUE[,VALUE]",
        help="what a clip shows, in turn; repeatable",
    )
    out.add_argument("--out", type=Path, metavar="DIR", help="default: var/generated/RUN")
    out.add_argument("--json", action="store_true", help="one JSON object on the last line")
    return out


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    given = parser().parse_args(argv)
    site = Site.from_environment()
    try:
        require(1 <= given.count <= _MOST, "--count", given.count, f"from 1 to {_MOST}")
        require(0 <= given.seed < 2**31, "--seed", given.seed, "in [0, 2^31)")
        trained = find_trained(given.run, site)
        files, strips = _made(trained, given, site)
        out = given.out or Path("var/generated") / trained.name
        _write(out, files | strips)
    except (ValueError, OSError) as error:
        return command.wrong_call(error)
    where = f"generated/step-{trained.step:08d}"
    told = {f"{where}/{name}": data for name, data in files.items()}
    mlflow = postscript.add(site, trained.name, step=trained.step, files=told)
    print(f"{trained.name} after {trained.step} steps: {len(strips)} clips in {out.absolute()}")
    if given.json:
        result = {
            "run": trained.name,
            "step": trained.step,
            "kind": trained.kind,
            "seed": given.seed,
            "clips": len(strips),
            "out": str(out.absolute()),
            "files": sorted(files | strips),
            "mlflow_run": mlflow,
        }
        print(json.dumps(result))
    return 0


def _made(
    trained: Trained, given: argparse.Namespace, site: Site
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """(the pictures, a lossless strip of each clip), by file name."""
    _refuse(trained, given)
    begun, real = _beginnings(trained, given, site)
    count = given.count
    if begun is not None and (real is not None or trained.kind == "future"):
        count = len(begun)  # without noise there is one clip of a picture
    attributes = _attributes(trained, given.attributes)

    def parts_of(seeds: range) -> dict[str, Pixels]:
        """Clips of these seeds, with what was given in turn, one a clip."""
        turns = [seed - given.seed for seed in seeds]
        return trained.sample(
            seeds,
            None if begun is None else begun[[n % len(begun) for n in turns]],
            captions=says(seeds),
            attributes=(
                None if attributes is None else attributes[[n % len(attributes) for n in turns]]
            ),
        )

    def says(seeds: range) -> list[str] | None:
        asked = given.caption
        return [asked[(seed - given.seed) % len(asked)] for seed in seeds] if asked else None

    seeds = range(given.seed, given.seed + min(count, _SHOWN))
    parts = parts_of(seeds)
    files: dict[str, bytes] = {}
    if begun is not None:
        files = _futures(begun, parts["sample"], real)
    if trained.kind == "drawing":
        files = drawings.strokes(trained, seeds[:_APART], says(seeds[:_APART]))
    strips = [pictures.strip(clip) for clip in parts["sample"]]
    while len(strips) < count:
        first = given.seed + len(strips)
        more = range(first, first + min(count - len(strips), _SHOWN))
        strips += [pictures.strip(clip) for clip in parts_of(more)["sample"]]
    files |= _pictures(parts)
    return files, {f"clips/{n:04d}.png": data for n, data in enumerate(strips)}


def _refuse(trained: Trained, given: argparse.Namespace) -> None:
    """Raises ValueError for what the model cannot do."""
    if trained.kind in ("classifier", "reader"):
        raise ValueError(
            f"{trained.name} is a {trained.kind} and makes no video; "
            f"python -m orchestrator.evaluate {given.run} says how often it is right"
        )
    if not trained.learner.goes_on and (given.image or given.data):
        option = "--image" if given.image else "--data"
        raise ValueError(
            f"{option}: {trained.name} goes on from nothing; that is for future models and VideoVAE"
        )
    if given.image and given.data:
        raise ValueError("--image and --data: first frames are of one of them, and not both")
    if trained.kind == "future" and not (given.image or given.data):
        raise ValueError(
            f"{trained.name} goes on from a picture: give --image FILE, as often as you like, or "
            "--data NAME for clips of a dataset"
        )
    if given.caption and not trained.captioned:
        raise ValueError(f"--caption: {trained.name} draws from no captions")
    if given.caption:
        trained.conditions(given.caption)  # all words are known
    if given.attributes and "attributes_ba" not in trained.learner.conditions:
        raise ValueError(f"--attributes: {trained.name} is told no attributes")
    if given.attributes and not trained.attributes:
        raise ValueError(
            f"--attributes: {trained.name} does not say what its attributes are called; it was "
            "trained before that was kept"
        )


def _attributes(trained: Trained, asked: Sequence[Sequence[str]]) -> Array | None:
    """int64 (N, T, A), of each --attributes; None without any."""
    frames, names = trained.model.clip_shape[0], trained.attributes
    try:
        by_clip = [frame_values(each, names, frames) for each in asked]
    except ValueError as error:
        raise ValueError(f"--attributes {error}") from None
    return np.stack(by_clip) if by_clip else None


def _pictures(parts: dict[str, Pixels]) -> dict[str, bytes]:
    """Of all clips, and of two streams what each made."""
    columns = max(4, math.ceil(len(parts["sample"]) ** 0.5))
    files = {
        "samples.gif": pictures.animated_grid(parts["sample"], columns=columns),
        "samples.mp4": pictures.animated_mp4(parts["sample"], columns=columns),
        "samples.png": pictures.contact_sheet(parts["sample"]),
    }
    if "background" in parts:
        taken_apart = {"video": parts["sample"]}
        taken_apart |= {name: parts[name] for name in ("foreground", "mask", "background")}
        files |= {
            "streams.gif": pictures.animated_rows(taken_apart, clips=_APART),
            "streams.png": pictures.streams_sheet(taken_apart, clips=_APART),
            "foreground.gif": pictures.animated_grid(parts["foreground"], columns=columns),
            "mask.gif": pictures.animated_grid(parts["mask"], columns=columns),
            "background.png": pictures.still_grid(parts["background"], columns=columns),
        }
    return files


def _beginnings(
    trained: Trained, given: argparse.Namespace, site: Site
) -> tuple[Pixels | None, Pixels | None]:
    """(first frames (N, 1, H, W, 3) to go on from, the clips (N, T, H, W, 3) that they are of)."""
    shape = trained.model.clip_shape
    if given.data:
        real = some_clips(open_data(given.data, site, shape), given.count).video_nthwc
        return real[:, :1], real
    if given.image:
        return np.stack([_image(name, shape[1])[None] for name in given.image]), None
    return None, None


def _futures(begun: Pixels, made: Pixels, real: Pixels | None) -> dict[str, bytes]:
    """Pictures of the futures beside what they begin from."""
    turns = np.arange(min(len(made), 2 * _APART)) % len(begun)
    made = made[: len(turns)]
    rows = {"input": np.broadcast_to(begun[turns], made.shape), "future": made}
    if real is not None:
        rows["real"] = real[: len(turns)]
    return {
        "futures.gif": pictures.animated_rows(rows, clips=2 * _APART),
        "futures.mp4": pictures.animated_rows_mp4(rows, clips=2 * _APART),
        "futures.png": pictures.streams_sheet(rows, clips=2 * _APART),
    }


def _image(name: str, size_px: int) -> Pixels:
    try:
        data = Path(name).expanduser().read_bytes()
    except OSError as error:
        raise ValueError(f"--image {name}: cannot be read: {error.strerror}") from None
    return read_still(data, size_px, where=f"--image {name}")


def _write(out: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    sys.exit(main())
