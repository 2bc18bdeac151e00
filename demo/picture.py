"""Draws terminal output: `python -m demo.picture TITLE <output.txt >picture.svg`.

CONTRIBUTING.md has the command for the README's picture.
"""

from __future__ import annotations

import sys
import unicodedata
from xml.sax.saxutils import escape, quoteattr

_CELL_WIDTH, _LINE_HEIGHT, _MARGIN, _BAR_HEIGHT = 7.8, 18, 16, 34
_FRAME = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" \
aria-label={label}>
<style>text {{ font: 13px monospace; fill: #d8dee9; white-space: pre }} \
.title {{ fill: #8892a6 }}</style>
<rect width="100%" height="100%" rx="8" fill="#20242f"/>
<g fill="#4c566a"><circle cx="20" cy="18" r="5"/><circle cx="36" cy="18" r="5"/>\
<circle cx="52" cy="18" r="5"/></g>
<text class="title" x="{middle:.0f}" y="22" text-anchor="middle">{title}</text>
{lines}
</svg>
"""


def terminal(title: str, text: str) -> str:
    """Draw a terminal as an SVG document."""
    rows = text.expandtabs().rstrip().split("\n")
    width = max(_cells(row) for row in (title, *rows)) * _CELL_WIDTH + 2 * _MARGIN
    # A width for each row keeps columns aligned in any font.
    lines = "\n".join(
        f'<text x="{_MARGIN}" y="{_BAR_HEIGHT + (number + 1) * _LINE_HEIGHT}" '
        f'textLength="{_cells(row) * _CELL_WIDTH:.1f}" xml:space="preserve">{escape(row)}</text>'
        for number, row in enumerate(rows)
        if row.strip()
    )
    return _FRAME.format(
        width=width,
        height=_BAR_HEIGHT + len(rows) * _LINE_HEIGHT + _MARGIN,
        middle=width / 2,
        label=quoteattr(title),
        title=escape(title),
        lines=lines,
    )


def _cells(row: str) -> int:
    """The width of a row in terminal columns."""
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in row)


if __name__ == "__main__":
    sys.stdout.write(terminal(sys.argv[1], sys.stdin.read()))
