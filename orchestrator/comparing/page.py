"""A comparison as one HTML file that needs nothing else: no server, no network, no other file.

Curves are Bokeh's; the page's own frame, style and script are beside this room in `static/`.
A policy in the page forbids it every request.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from bokeh.embed import json_item
from bokeh.models import ColumnDataSource, HoverTool, MultiLine, NumeralTickFormatter, TapTool
from bokeh.plotting import figure
from bokeh.resources import Resources

from orchestrator.comparing.comparison import Comparison
from orchestrator.comparing.curves import MetricCurves, packed
from orchestrator.comparing.table import table_of
from orchestrator.comparing.text import headline
from orchestrator.comparing.thumbnails import Thumbnail, data_url

_SOURCES = {
    "runs": ("xs", "ys", "place", "colour", "alpha", "faint", "width", "name", "says"),
    "means": ("xs", "ys", "colour", "name", "says"),
    "areas": ("xs", "ys", "colour"),
}
_TOOLTIPS = [("run", "@name"), ("", "@says"), ("step", "$snap_x{0,0}"), ("value", "$snap_y")]


@dataclass(frozen=True, kw_only=True)
class Card:
    """Samples of a run, by its place; None for real clips. step: after how many they were drawn."""

    run: int | None
    step: int
    thumbnail: Thumbnail


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a page says beside the comparison itself. title: of the window. sentences: after the
    headline's. gallery_note: which runs the cards are of. method: how it was made."""

    title: str
    sentences: Sequence[str]
    gallery_note: str
    method: Sequence[str]


def page(
    comparison: Comparison, curves: Sequence[MetricCurves], cards: Sequence[Card], told: Told
) -> str:
    """The HTML. curves: by metric; the first one is shown at first."""
    data = {
        **vars(table_of(comparison)),
        "title": told.title,
        "headline": [*headline(comparison), *told.sentences],
        "mode": comparison.mode,
        "curves": [_curves(each) for each in curves],
        "gallery": [_card(each) for each in cards],
        "zoom": min(2.0, max(1.0, 5 / max(1, len(cards)))),
        "gallery_note": told.gallery_note,
        "same": dict(comparison.same),
        "method": list(told.method),
    }
    folder = files("orchestrator.comparing") / "static"
    parts = {
        "/*css*/": (folder / "page.css").read_text(),
        "/*data*/": _json(data),
        "/*figures*/": _json({scale: _figure(scale) for scale in ("linear", "log")}),
        "/*bokeh*/": "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw),
        "/*js*/": (folder / "page.js").read_text(),
    }
    done, rest = "", (folder / "page.html").read_text()
    for mark, text in parts.items():
        before, rest = rest.split(mark)
        done += before + text
    return done + rest


def _json(value: Any) -> str:
    """For a script element, which `<` could end."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _curves(each: MetricCurves) -> dict[str, Any]:
    places = list(each.paths)
    paths = list(each.paths.values())
    drawn = "means and spikes" if each.coarse else "least and greatest value"
    note = "every logged value" if each.exact else f"{drawn} of every {each.width:,} steps"
    bands = list(each.bands.values())
    return {
        "metric": each.metric,
        "runs": places,
        "steps": packed([path.steps for path in paths]),
        "values": packed([path.values for path in paths]),
        "note": f"{len(places):,} runs, {note}",
        "bands": {
            "configurations": list(each.bands),
            "steps": packed([band.steps for band in bands]),
            "mean": packed([band.mean for band in bands]),
            "sd": packed([band.sd for band in bands]),
        }
        if bands
        else None,
    }


def _card(card: Card) -> dict[str, Any]:
    small = card.thumbnail
    return {
        "run": card.run,
        "step": card.step,
        "moving": [data_url(small.moving), small.width, small.height],
        "still": [data_url(small.still), small.still_width, small.still_height],
    }


def _figure(scale: str) -> Any:
    """An empty chart; the page's script gives it its data."""
    kind: Literal["log", "linear"] = "log" if scale == "log" else "linear"
    chart = figure(
        height=400,
        sizing_mode="stretch_width",
        y_axis_type=kind,
        x_axis_label="step",
        tools="pan,box_zoom,wheel_zoom,reset,save",
        active_drag="box_zoom",
    )
    chart.yaxis[0].name = "values"
    chart.xaxis[0].formatter = NumeralTickFormatter(format="0,0")
    runs, means, areas = (
        ColumnDataSource({key: [] for key in keys}, name=name) for name, keys in _SOURCES.items()
    )
    # Bokeh complains of ranges without any data; nobody sees this line.
    runs.data = {key: [0] for key in runs.data} | {
        "xs": [[0, 1]],
        "ys": [[1, 2]],
        "alpha": [0],
        "faint": [0],
    }
    chart.patches("xs", "ys", source=areas, fill_color="colour", fill_alpha=0.2, line_alpha=0)
    lines = chart.multi_line(
        "xs",
        "ys",
        source=runs,
        line_color="colour",
        line_alpha="alpha",
        line_width="width",
        nonselection_line_alpha="faint",
        hover_line_alpha=1,
        hover_line_color="#d55e00",
        name="lines",
    )
    picked = MultiLine(xs="xs", ys="ys", line_color="colour", line_width=2.5)
    lines.selection_glyph = picked
    mean = chart.multi_line("xs", "ys", source=means, line_color="colour", line_width=2.5)
    hover = HoverTool(tooltips=_TOOLTIPS, renderers=[lines, mean], line_policy="nearest", limit=3)
    tap = TapTool(renderers=[lines])
    chart.add_tools(hover, tap)
    chart.toolbar.logo = None
    return json_item(chart)
