"""Charts of the report as inline SVG: the same bytes for the same numbers, readable on light and on dark.

Lines are drawn in colours with a contrast of at least 3 on both pages; axes, ticks and grids take the page's own text
colour (`currentColor`), because matplotlib's black cannot be seen on a dark page.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

MOST_BARS = 40  # classes in the chart of acceptance
BLUE, ORANGE, GREY, GREEN = "#3b7dd8", "#d9741a", "#7d838d", "#2e9a5b"
LONGEST_NAME = 24  # characters
INK = "#010203"  # stands for the page's text colour until the SVG is written
STYLE = {
    "svg.hashsalt": "natix",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), INK
    ),
}


def reliability(bins: Sequence[dict[str, float]]) -> str:
    """Accuracy against confidence; a calibrated model lies on the diagonal, 95 % of the time within the bars."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes("confidence", "accuracy")
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
        x = [b["confidence"] for b in bins]
        axes.vlines(
            x, [b["null_low"] for b in bins], [b["null_high"] for b in bins], color=GREY, linewidth=5, alpha=0.4
        )
        largest = max(b["n"] for b in bins)
        axes.scatter(
            x,
            [b["accuracy"] for b in bins],
            s=[12 + 120 * b["n"] / largest for b in bins],
            color=BLUE,
            clip_on=False,
            zorder=3,
        )
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        return _svg(figure)


def risk_coverage(points: Sequence[dict[str, float]], coverage: float, risk: float | None, alpha: float | None) -> str:
    """Error rate of the accepted against coverage, its upper bound if known, the policy's place, and alpha."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes("coverage", "error rate of the accepted")
        x = [p["coverage"] for p in points]
        axes.plot(x, [p["risk"] for p in points], color=BLUE, label="seen")
        if "bound" in points[0]:
            axes.plot(x, [p["bound"] for p in points], color=BLUE, linewidth=1, linestyle=":", label="upper bound")
            axes.legend(frameon=False)
            most = max(max(p["risk"] for p in points), alpha or 0.0)
            axes.set_ylim(top=min(1.02, 2 * most + 0.02))  # the bound of a handful of images is 1
        if alpha is not None:
            axes.axhline(alpha, color=GREY, linewidth=1, linestyle="--")
            axes.annotate("alpha", (0.01, alpha), xytext=(0, 3), textcoords="offset points")
        if risk is not None:
            axes.scatter([coverage], [risk], color=ORANGE, zorder=3)
            axes.annotate("policy", (coverage, risk), xytext=(-6, 7), textcoords="offset points", ha="right")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(bottom=0)
        return _svg(figure)


def thresholds(points: Sequence[dict[str, float]], chosen: float) -> str:
    """Coverage and macro-F1 against the threshold on the probability, and the chosen one."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes("threshold, as a probability", "")
        x = [p["threshold"] for p in points]
        axes.plot(x, [p["coverage"] for p in points], color=BLUE, label="coverage")
        axes.plot(x, [p["macro_f1"] for p in points], color=ORANGE, label="macro-F1")
        axes.axvline(chosen, color=GREY, linewidth=1, linestyle="--", label="chosen")
        axes.legend(frameon=False)
        axes.set_xlim(min([*x, chosen]) - 0.01, 1.01)
        axes.set_ylim(0, 1.02)
        return _svg(figure)


def temperature(points: Sequence[dict[str, float]], fitted: float) -> str:
    """NLL against the temperature, the fitted one marked."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes("temperature", "NLL, nats")
        axes.plot([p["temperature"] for p in points], [p["nll"] for p in points], color=BLUE)
        axes.axvline(fitted, color=ORANGE, linewidth=1, label=f"fitted, {fitted:.3g}")
        axes.axvline(1.0, color=GREY, linewidth=1, linestyle="--", label="1")
        axes.set_xscale("log")
        axes.minorticks_off()
        ticks = [points[0]["temperature"], fitted, points[-1]["temperature"]]
        axes.set_xticks(ticks, [f"{t:.3g}" for t in ticks])
        axes.legend(frameon=False)
        return _svg(figure)


def acceptance(classes: Mapping[str, dict[str, float]]) -> str:
    """Share of each true class that is accepted."""
    with matplotlib.rc_context(STYLE):
        shown = list(classes)[:MOST_BARS]
        figure, axes = _axes("accepted", "", height=max(1.2, 0.5 + 0.22 * len(shown)))
        axes.barh(range(len(shown)), [classes[name]["accepted"] for name in shown], color=BLUE, height=0.7)
        axes.set_yticks(range(len(shown)), [plain(name) for name in shown])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.02)
        return _svg(figure)


def roc(points: Sequence[dict[str, float]]) -> str:
    """True against false positive rate of the binary score."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes("false positive rate", "true positive rate")
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
        axes.plot([p["fpr"] for p in points], [p["tpr"] for p in points], color=BLUE)
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        return _svg(figure)


def curve(x: Sequence[float], y: Sequence[float], x_title: str, y_title: str) -> str:
    """One line."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(x_title, y_title)
        axes.plot(x, y, color=BLUE, linewidth=1)
        return _svg(figure)


def stacked(names: Sequence[str], parts: Mapping[str, Sequence[int]]) -> str:
    """Images of each name as a bar, in up to four parts."""
    with matplotlib.rc_context(STYLE):
        shown = names[:MOST_BARS]
        figure, axes = _axes("images", "", height=max(1.4, 0.8 + 0.24 * len(shown)))
        left = [0] * len(shown)
        for (title, counts), color in zip(parts.items(), (BLUE, ORANGE, GREEN, GREY), strict=False):
            axes.barh(range(len(shown)), counts[: len(shown)], left=left, color=color, height=0.7, label=title)
            left = [start + count for start, count in zip(left, counts, strict=False)]
        axes.set_yticks(range(len(shown)), [plain(name) for name in shown])
        axes.invert_yaxis()
        figure.legend(frameon=False, ncols=2, loc="outside upper center")
        return _svg(figure)


def histogram(edges: Sequence[float], counts: Sequence[int], x_title: str) -> str:
    """Images between edges, evenly spaced whatever the edges are."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(x_title, "images", height=2.2)
        axes.bar([0.5 + number for number in range(len(counts))], counts, color=BLUE, width=0.9)
        axes.set_xticks(range(len(edges)), [f"{edge:.3g}" for edge in edges])
        axes.tick_params(axis="x", labelsize=7)
        return _svg(figure)


def plain(name: str) -> str:
    """A name as matplotlib draws it: no formula, and short enough to leave room for a bar."""
    short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    return short.replace("$", r"\$")


def _axes(x: str, y: str, height: float = 2.6) -> tuple[Figure, Any]:
    figure = Figure(figsize=(3.4, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.2)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor")
