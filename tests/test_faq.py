"""Each answer in docs/faq.md is held by tests that exist, and names what there is."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.about import own_settings

CHECKOUT = Path(__file__).parent.parent
DOCS = CHECKOUT / "docs"
PAGE = (DOCS / "faq.md").read_text("utf-8")
FIELDS = json.loads((CHECKOUT / "schemas" / "contacts.json").read_text("utf-8"))["properties"]
OTHER_NAMES = {"batch_config", "created_at"}
"""A setting of the SDK, and the field that there is not."""


class Question(NamedTuple):
    """A question of the page.

    Attributes:
        words: The question.
        answer: What the page shows below it.
        held_by: The tests that hold the answer, as pytest calls them.
    """

    words: str
    answer: str
    held_by: list[str]


def questions() -> list[Question]:
    """The questions of the page, in order."""
    found = []
    for part in re.split(r"(?m)^(?=##)", PAGE):
        if part.startswith("### "):
            heading, _, text = part.partition("\n")
            answer, _, comment = text.partition("<!-- held by\n")
            names, _, rest = comment.partition("-->")
            assert rest.strip() == "", heading
            found.append(Question(heading[4:], answer.strip(), names.split()))
    return found


@cache
def in_file(file: Path) -> set[str]:
    """The tests of a file, each with its class."""
    module = ast.parse(file.read_text("utf-8"))
    classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
    return {
        f"{prefix}{node.name}"
        for prefix, body in [("", module.body), *((f"{c.name}::", c.body) for c in classes)]
        for node in body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("question", questions(), ids=lambda question: question.words)
def test_answer_is_held_by_tests_that_exist(question: Question) -> None:
    assert question.answer
    assert question.held_by
    assert len(set(question.held_by)) == len(question.held_by)
    for name in question.held_by:
        file, _, test = name.partition("::")
        assert (CHECKOUT / file).is_file(), file
        assert test in in_file(CHECKOUT / file), name


def test_every_heading_is_a_question_asked_once() -> None:
    words = [question.words for question in questions()]

    assert words == re.findall(r"(?m)^### (.+\?)$", PAGE)
    assert len(set(words)) == len(words) > 20


def test_every_setting_and_field_that_is_named_exists() -> None:
    named = set(re.findall(r"`([a-z]+_[a-z_]+)[:`]", PAGE))

    assert named - OTHER_NAMES <= {*own_settings(), *FIELDS}


def test_readme_leads_here() -> None:
    assert "(docs/faq.md)" in (CHECKOUT / "README.md").read_text("utf-8")
