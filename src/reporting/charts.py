"""Charts as inline SVG for a page: every axis has a name, and the page's own style decides the colors.

A chart is drawn in placeholder colors, which become CSS variables (--ink, --soft, --line, --c0 to --c7), so that one
page is legible on white and on black. The SVG names no outside address and has ids of its own. matplotlib is imported
where it is used.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, SOFT, LINE = "#0a0b01", "#0a0b02", "#0a0b03"  # text; secondary text; grid
SERIES = tuple(f"#0a0c0{index}" for index in range(8))
_VARIABLES = {INK: "ink", SOFT: "soft", LINE: "line", **{color: f"c{i}" for i, color in enumerate(SERIES)}}
MOST_POINTS = 1500  # in one chart as shapes; more of them become a picture within it
_RASTER = "#4c86b8"  # the color of such points: the page's style does not reach into a picture
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may hold dollars
    "font.size": 12,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), SOFT),
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 11,
    "savefig.transparent": True,
}


class Line(NamedTuple):
    """A line of a chart: its name, x and y of equal length, its color's index, and whether it is dashed and faint."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: int = 0
    faint: bool = False


class Estimate(NamedTuple):
    """A figure with its interval (NaN for none); `strong` marks the one to look at first."""

    name: str
    value: float
    low: float = float("nan")
    high: float = float("nan")
    strong: bool = False


class Scale(NamedTuple):
    """An x axis: logarithmic or not, its range, names for 0, 1, ..., and whether it counts in whole numbers."""

    log: bool = False
    span: tuple[float, float] | None = None
    labels: Sequence[str] = ()
    whole: bool = False


class _Chart:
    """A chart that `_chart` yields: axes to draw on, and `svg` after the block has ended."""

    axes: Any
    svg = ""


@contextmanager
def _chart(name: str, width: float = 5.0, height: float = 3.4, **subplots: Any) -> Iterator[_Chart]:
    """Yield a figure of `width` x `height` inches in the page's style; afterwards its `.svg` holds the text."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(dict[Any, Any]({**_STYLE, "svg.hashsalt": name})):
        chart, figure = _Chart(), Figure(figsize=(width, height), layout="constrained")
        chart.axes = figure.subplots(**subplots)
        yield chart
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    chart.svg = inlined(buffer.getvalue(), name)


def inlined(text: str, name: str) -> str:
    """Return an SVG file's text for a page: no header or addresses, ids prefixed by `name`, colors as variables."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", text, flags=re.DOTALL)
    head, rest = text.split(">", 1)
    box = head.split('viewBox="')[1].split('"')[0]
    rest = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", rest.replace("xlink:href", "href"))
    rest = re.sub(r"font-family: [^;\"]+;? ?", "", rest)
    for color, variable in _VARIABLES.items():
        rest = rest.replace(color, f"var(--{variable})")
    rest = re.sub(r"\n+\s*", "\n", rest)
    return f'<svg viewBox="{box}" role="img">{rest}'


def _color(index: int) -> str:
    return SERIES[index % len(SERIES)]


def _amount(value: float, _: int = 0) -> str:
    """Return a number of pixels for an axis: 100, 10 k, 1 M."""
    for factor, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:g}{unit}"
    return f"{value:g}"


def _finish(axes: "Axes", xlabel: str, ylabel: str, grid: Literal["both", "x", "y"] = "y") -> None:
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(axis=grid)
    axes.tick_params(length=0)


def intervals(name: str, rows: Sequence[Estimate], label: str) -> str:
    """Draw figures one below the other, each a dot on its 95% interval, on one axis called `label`."""
    with _chart(name, height=0.9 + 0.42 * len(rows)) as chart:
        axes = chart.axes
        for place, row in enumerate(rows):
            color = _color(1) if row.strong else SOFT
            if np.isfinite([row.low, row.high]).all():
                axes.plot([row.low, row.high], [place, place], color=color, linewidth=2.5, solid_capstyle="round")
            axes.plot(row.value, place, "o", color=color, markersize=8 if row.strong else 6)
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.tick_params("y", labelcolor=INK)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.margins(x=0.08)
        axes.spines["left"].set_visible(False)
        _finish(axes, label, "", grid="x")
    return chart.svg


def lines(
    name: str, series: Sequence[Line], xlabel: str, ylabel: str, marks: Sequence[float] = (), whole: bool = False
) -> str:
    """Draw lines over one axis, named in a legend; `marks`: x of vertical lines; `whole`: x counts in whole numbers."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    with _chart(name) as chart:
        axes = chart.axes
        for mark in marks:
            axes.axvline(mark, color=SOFT, linewidth=1, linestyle=(0, (2, 2)))
        for line in series:
            dashes = (0, (4, 2)) if line.faint else "-"
            marker = "o" if len(line.x) < 4 else None  # a line of a single epoch would be invisible
            axes.plot(line.x, line.y, color=_color(line.color), linestyle=dashes, marker=marker, markersize=4,
                      linewidth=1.2 if line.faint else 1.9, alpha=0.75 if line.faint else 1)  # fmt: skip
        if whole:
            axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        _finish(axes, xlabel, ylabel)
        names = {line.name: Line2D([], [], color=_color(line.color), linestyle=(0, (4, 2)) if line.faint else "-")
                 for line in series if line.name}  # fmt: skip
        if len(names) > 1:
            chart.axes.figure.legend(names.values(), names, loc="outside upper left", ncols=min(5, len(names)),
                                     handlelength=1.4, columnspacing=1.2)  # fmt: skip
    return chart.svg


def strips(name: str, labels: Sequence[str], values: Sequence[np.ndarray], xlabel: str, ylabel: str) -> str:
    """Draw a column of points for each label: a jittered dot an image, with a box of the quartiles and the mean."""
    random, many = np.random.default_rng(0), sum(map(len, values)) > MOST_POINTS
    with _chart(name, height=3.7) as chart:
        axes = chart.axes
        for place, column in enumerate(values):
            color = _color(place)
            at = place + random.uniform(-0.3, 0.3, len(column))
            axes.plot(at, column, "o", markersize=3.6, color=_RASTER if many else color, alpha=0.4, markeredgewidth=0,
                      rasterized=many)  # fmt: skip
            if len(column):
                low, middle, high = np.quantile(column, (0.25, 0.5, 0.75))
                axes.plot([place - 0.36, place + 0.36], [middle, middle], color=INK, linewidth=1.8)
                axes.fill_between([place - 0.36, place + 0.36], low, high, color=color, alpha=0.18, linewidth=0)
                axes.plot(place, column.mean(), "D", color=INK, markersize=5)
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlim(-0.6, len(labels) - 0.4)
        _finish(axes, xlabel, ylabel)
    return chart.svg


def rows_of_points(name: str, labels: Sequence[str], values: Sequence[np.ndarray], xlabel: str) -> str:
    """Draw a row for each label: its images as small dots, their mean as a large one."""
    with _chart(name, height=1.0 + 0.27 * len(labels)) as chart:
        axes = chart.axes
        for place, row in enumerate(values):
            axes.plot(row, np.full(len(row), place), "o", markersize=4, color=_color(0), alpha=0.4, markeredgewidth=0)
            axes.plot(row.mean(), place, "o", markersize=7, color=_color(1))
        axes.set_yticks(range(len(labels)), labels)
        axes.tick_params("y", labelsize=10)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.spines["left"].set_visible(False)
        _finish(axes, xlabel, "", grid="both")
    return chart.svg


def reliability(name: str, curves: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]]) -> str:
    """Draw observed frequency against predicted probability, with the number of pixels of each bin below.

    curves: (name, mean predicted, observed, pixels), each of the three (bins,); empty bins are left out of the lines.
    """
    with _chart(name, height=4.9, nrows=2, sharex=True, height_ratios=(3, 1)) as chart:
        above, below = chart.axes
        above.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
        above.text(0.76, 0.66, "perfect", color=SOFT, fontsize=10, rotation=40)
        for index, (label, predicted, observed, pixels) in enumerate(curves):
            full = pixels > 0
            above.plot(predicted[full], observed[full], "o-", color=_color(index), markersize=5, label=label)
            edges = np.linspace(0, 1, len(pixels) + 1)
            below.stairs(np.maximum(pixels, 0.5), edges, baseline=0.5, color=_color(index), linewidth=1.5,
                         fill=len(curves) == 1, alpha=0.7 if len(curves) == 1 else 1)  # fmt: skip
        if len(curves) > 1:
            above.figure.legend(loc="outside upper left", ncols=min(4, len(curves)))
        above.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        below.set_yscale("log")
        below.yaxis.set_major_formatter(_amount)
        _finish(above, "", "observed share of foreground", grid="both")
        _finish(below, "predicted probability of foreground", "pixels", grid="y")
    return chart.svg


def by_area(
    name: str,
    series: Sequence[tuple[str, np.ndarray, np.ndarray]],
    ylabel: str,
    median: tuple[np.ndarray, np.ndarray] | None = None,
) -> str:
    """Draw scores against the true mask's area in % of the image (log axis), a dot an image; `median`: (x, y)."""
    from matplotlib.ticker import LogLocator, NullFormatter

    many = sum(len(x) for _, x, _ in series) > MOST_POINTS
    with _chart(name) as chart:
        axes = chart.axes
        for index, (label, x, y) in enumerate(series):
            axes.plot(x, y, "o", markersize=4.2, color=_RASTER if many else _color(index), alpha=0.5,
                      markeredgewidth=0, rasterized=many, label=label)  # fmt: skip
        if median is not None:
            axes.plot(*median, color=INK, linewidth=1.9, label="median")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.figure.legend(loc="outside upper left", ncols=4)
        _finish(axes, "area of the true mask, % of the image (log)", ylabel, grid="both")
    return chart.svg


def scatter(
    name: str,
    x: Sequence[float],
    y: Sequence[float],
    xlabel: str,
    ylabel: str,
    scale: Scale = Scale(),  # noqa: B008 (frozen)
    *,
    best: Sequence[float] = (),
    mark: int | None = None,
) -> str:
    """Draw a dot for each x and y. best: a stepped line through a value at each x; mark: the dot to draw larger."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    with _chart(name) as chart:
        axes = chart.axes
        if len(best):
            axes.step(x, best, where="post", color=INK, linewidth=1.9)
        axes.plot(x, y, "o", color=_color(0), markersize=6, alpha=0.6, markeredgewidth=0)
        if mark is not None:
            axes.plot(x[mark], y[mark], "o", color=_color(1), markersize=9, markeredgewidth=0)
        if scale.log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        if scale.span:
            low, high = scale.span
            axes.set_xlim(
                (low / 1.15, high * 1.15) if scale.log else (low - 0.04 * (high - low), high + 0.04 * (high - low))
            )
        axes.margins(y=0.1)
        if scale.labels:
            turned = {"rotation": 20, "ha": "right"} if sum(map(len, scale.labels)) > 36 else {}
            axes.set_xticks(range(len(scale.labels)), scale.labels, **turned)
            axes.set_xlim(-0.5, len(scale.labels) - 0.5)
        elif scale.whole:
            axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        _finish(axes, xlabel, ylabel, grid="both")
    return chart.svg
