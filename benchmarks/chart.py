"""Bar charts as plain SVG, readable on light and on dark pages."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_STYLE = """
  text { font: 13px system-ui, -apple-system, 'Segoe UI', sans-serif; fill: #1f2328; }
  .card { fill: #ffffff; stroke: #d1d9e0; }
  .title { font-size: 16px; font-weight: 600; }
  .small { font-size: 12px; fill: #59636e; }
  .tap { fill: #0969da; }
  .peer { fill: #8c959f; }
  .limit { fill: none; stroke: #8c959f; stroke-dasharray: 4 3; }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc; }
    .card { fill: #0d1117; stroke: #3d444d; }
    .small { fill: #9198a1; }
    .tap { fill: #4493f8; }
    .peer { fill: #656c76; }
    .limit { stroke: #9198a1; }
  }
"""
_WIDTH, _LEFT, _RIGHT = 760, 270, 70
_BAR, _STEP, _HEAD, _GAP = 16, 26, 62, 40


def draw(bars: Mapping[str, Mapping[str, float]], title: str) -> str:
    """Draw an SVG document with a panel for each key of `bars`, and a bar for each label in it."""
    longest = max(ratio for of_kind in bars.values() for ratio in of_kind.values())
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    parts = []
    y = _HEAD
    for kind, of_kind in bars.items():
        parts.append(f'<text class="small" x="24" y="{y + 12}">{escape(kind)}</text>')
        y += _STEP
        for label, ratio in sorted(of_kind.items(), key=lambda bar: -bar[1]):
            name = next((one for one in ("tap", "limit") if label.startswith(one)), "peer")
            parts.append(_bar(name, label, ratio, ratio * scale, y))
            y += _STEP
        y += _GAP - _STEP
    description = "; ".join(
        f"{kind}: " + ", ".join(f"{label} {ratio:.1f}" for label, ratio in of_kind.items())
        for kind, of_kind in bars.items()
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" '
        f'height="{y}" role="img" aria-labelledby="title about">\n'
        f'<title id="title">{title}</title>\n<desc id="about">{escape(description)}</desc>\n'
        f"<style>{_STYLE}</style>\n"
        f'<rect class="card" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{y - 1}" rx="8"/>\n'
        f'<text class="title" x="24" y="34">{title}</text>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _bar(name: str, label: str, ratio: float, width: float, y: int) -> str:
    return (
        f'<text x="{_LEFT - 10}" y="{y + 13}" text-anchor="end">{escape(label)}</text>'
        f'<rect class="{name}" x="{_LEFT}" y="{y}" width="{max(width, 1):.1f}" height="{_BAR}"/>'
        f'<text x="{_LEFT + width + 8:.1f}" y="{y + 13}">{ratio:.1f}</text>'
    )
