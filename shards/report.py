"""What an ingest says about itself: the counts, the report, the manifest and the closing table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shards.manifest import ATTRIBUTE, LABEL, OF_CONTENT, WORD, ClipFormat, Manifest, Shard
from shards.spill import Plan

REPORT = "report.json"
MOST_CLASSES = 10_000
"""Sources in more folders than these are filed by something else than class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What an ingest left: the manifest, the report's location, and whether it was there before."""

    manifest: Manifest
    report: str
    existed: bool


def count(plan: Plan, videos: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many videos and clips were read, kept, and rejected by reason; whole seconds of video.

    Where every kept clip has a class, also the kept clips of each class of the plan: one whose
    videos were all rejected counts 0, so that the parts of a split agree on what the classes are.
    So with an attribute and its values, where every kept clip has it; and with the words of their
    captions, of which only those that occur count.
    """
    counts: Counter[str] = Counter(videos=0, videos_kept=0, clips=0, clips_kept=0)
    seconds = 0.0
    for video in videos:
        counts["videos"] += 1
        counts["videos_cut_short"] += video["note"] is not None
        counts[f"videos_rejected_{video['reason']}" if video["reason"] else "videos_kept"] += 1
        counts["clips"] += video["clips"] + len(video["rejected"])
        counts["clips_kept"] += video["clips"]
        counts.update(f"clips_rejected_{reason}" for _, reason, _ in video["rejected"])
        seconds += video["seconds"]
    counts["seconds"] = round(seconds)
    of_content = {**_by_class(plan, videos), **_described(plan, videos)}
    return dict(sorted({**counts, **of_content}.items()))


def _by_class(plan: Plan, videos: Sequence[dict[str, Any]]) -> dict[str, int]:
    classes = {source.name: [LABEL + name for name in source.labels] for source in plan.sources}
    counts = Counter(dict.fromkeys((name for names in classes.values() for name in names), 0))
    if len(counts) > MOST_CLASSES:
        return {}
    for video in videos:
        if video["clips"] and not classes[video["source"]]:
            return {}
        counts.update(dict.fromkeys(classes[video["source"]], video["clips"]))
    return counts


def _described(plan: Plan, videos: Sequence[dict[str, Any]]) -> dict[str, int]:
    clips = [about for video in videos for _, about in video.get("described", ())]
    if not clips or len(clips) < sum(video["clips"] for video in videos):
        return {}
    counts: Counter[str] = Counter()
    if all("caption" in about for about in clips):
        for about in clips:
            counts.update(WORD + word for word in about["caption"].lower().split())
    had = [about.get("attributes", {}) for about in clips]
    common = set(had[0]).intersection(*had)
    known = (pair for source in plan.sources for pair in source.attributes if pair[0] in common)
    counts.update(dict.fromkeys((f"{ATTRIBUTE}{name} {value}" for name, value in known), 0))
    for attributes in had:
        counts.update(f"{ATTRIBUTE}{name} {attributes[name]}" for name in common)
    return counts


def seal(plan: Plan, shards: list[Shard], counts: dict[str, int]) -> Manifest:
    """The manifest of a dataset that is complete."""
    recipe = plan.recipe
    return Manifest(
        clip=ClipFormat(
            frames=recipe.frames,
            height=recipe.size_px,
            width=recipe.size_px,
            channels=recipe.channels,
            fps=recipe.fps,
            encoding=recipe.encoding,
            detail=recipe.detail,
        ),
        shards=tuple(shards),
        recipe={**recipe.to_dict(), "plan": plan.hash},
        counts=counts,
    )


def report_json(plan: Plan, counts: dict[str, int], videos: list[dict[str, Any]]) -> bytes:
    """`report.json`: each video's fate."""
    report = {"recipe": plan.recipe.to_dict(), "plan": plan.hash, "counts": counts}
    return json.dumps({**report, "videos": videos}, indent=1).encode() + b"\n"


def reasons(counts: dict[str, int]) -> str:
    """Why what was rejected was, in one line."""
    found = {n: k for n, k in counts.items() if "_rejected_" in n and not n.startswith(OF_CONTENT)}
    return ", ".join(f"{name.replace('_rejected_', ' ')} {n}" for name, n in found.items())


def summary(outcome: Outcome) -> str:
    """The closing table, for people."""
    counts = outcome.manifest.counts
    lines = []
    for kind in ("videos", "clips"):
        lines.append(f"{kind:<8}{counts[kind]:>10}   kept {counts[f'{kind}_kept']}")
        marker = f"{kind}_rejected_"
        rejected = {k.removeprefix(marker): n for k, n in counts.items() if k.startswith(marker)}
        lines += [f"  rejected {n:>7}   {k}" for k, n in sorted(rejected.items())]
    if counts["videos_cut_short"]:
        lines.append(f"  (of {counts['videos_cut_short']} videos only a part could be read)")
    classes = [number for name, number in counts.items() if name.startswith(LABEL)]
    if classes:
        lines.append(f"classes {len(classes):>10}   of {min(classes)} to {max(classes)} clips")
    size = sum(shard.bytes for shard in outcome.manifest.shards)
    lines.append(f"read    {counts['seconds'] / 3600:>10.3f}   hours of video")
    lines.append(f"wrote   {size / 1e6:>10.1f}   MB in {len(outcome.manifest.shards)} shards")
    lines.append(f"version {outcome.manifest.version}")
    lines.append(f"each video's fate: {outcome.report}")
    return "\n".join(lines)
