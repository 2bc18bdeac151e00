"""All pages: their links lead somewhere, and their pictures are drawn."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from demo.picture import terminal

CHECKOUT = Path(__file__).parent.parent
PAGES = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md"), *CHECKOUT.glob("*/*.md")])
PICTURES = sorted(CHECKOUT.glob("docs/pictures/*.svg"))
TEXT = "{http://www.w3.org/2000/svg}text"


def links(page: Path) -> list[str]:
    """Where the links of a page lead, those into the web apart."""
    found = re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
    return [link for link in found if not link.startswith(("http", "#"))]


def headings(page: Path) -> set[str]:
    """What a link into a page may name."""
    found = re.findall(r"(?m)^#+ (.+)$", page.read_text("utf-8"))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", sorted(set(PAGES)), ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in links(page):
        path, _, heading = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        assert not heading or heading in headings(target), link


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.stem)
def test_the_readme_shows_every_picture(picture: Path) -> None:
    assert picture in {(CHECKOUT / link) for link in links(CHECKOUT / "README.md")}


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.stem)
def test_a_picture_shows_how_the_tap_tells_a_window(picture: Path) -> None:
    rows = [text.text or "" for text in ET.parse(picture).iter(TEXT)]  # noqa: S314 - our own

    window = re.compile(
        r"[\d: -]{19} to [\d: -]{19} \| +[\d,]+ contacts \| +[\d.]+ s \| +\d+% done"
    )
    assert any(window.search(row) for row in rows)


def test_a_drawn_terminal_has_its_title_and_every_row_that_is_not_blank() -> None:
    drawn = ET.fromstring(terminal("a & b", "<first>\n\n  third\n"))  # noqa: S314 - our own

    assert [text.text for text in drawn.iter(TEXT)] == ["a & b", "<first>", "  third"]


def test_a_drawn_row_is_as_wide_as_in_a_terminal() -> None:
    narrow, wide = (
        float([*ET.fromstring(terminal("", row)).iter(TEXT)][1].attrib["textLength"])  # noqa: S314
        for row in ("ab", "雪")
    )

    assert narrow == wide
