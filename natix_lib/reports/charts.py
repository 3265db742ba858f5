"""Charts of the report as inline SVG: the same bytes for the same numbers, colours that work on light and dark."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#3b7dd8", "#d9741a", "#8a8f98"
STYLE = {"svg.hashsalt": "natix", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}


def reliability(bins: Sequence[dict[str, float]]) -> str:
    """Accuracy against confidence; a calibrated model lies on the diagonal."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes("confidence", "accuracy")
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
        largest = max(b["n"] for b in bins)
        axes.scatter(
            [b["confidence"] for b in bins],
            [b["accuracy"] for b in bins],
            s=[12 + 120 * b["n"] / largest for b in bins],
            color=BLUE,
            clip_on=False,
        )
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        return _svg(figure)


def risk_coverage(points: Sequence[dict[str, float]], coverage: float, risk: float | None, alpha: float | None) -> str:
    """Error rate of the accepted against coverage, with the policy's place and the promised bound."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes("coverage", "error rate of the accepted")
        axes.plot([p["coverage"] for p in points], [p["risk"] for p in points], color=BLUE)
        if alpha is not None:
            axes.axhline(alpha, color=GREY, linewidth=1, linestyle="--")
            axes.annotate("alpha", (0.01, alpha), xytext=(0, 3), textcoords="offset points", color=GREY)
        if risk is not None:
            axes.scatter([coverage], [risk], color=ORANGE, zorder=3)
            axes.annotate("policy", (coverage, risk), xytext=(-6, 7), textcoords="offset points", ha="right")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(bottom=0)
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


def _axes(x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(3.4, 2.6), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
