"""The project keeps its own rules: those of AGENTS.md, the layout of the code, and CI."""

from __future__ import annotations

import ast
import re
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Node = TypeVar("Node", bound=ast.AST)
ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]
MODULES = sorted((ROOT / "tap_cometly").glob("*.py"))
EACH_TEST_FILE = pytest.mark.parametrize(
    "path", sorted((ROOT / "tests").glob("test_*.py")), ids=lambda path: path.stem
)


def nodes(path: Path, kind: type[Node]) -> Iterator[Node]:
    tree = ast.parse(path.read_text("utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, kind))


def imports(path: Path, *, types: bool = False) -> set[str]:
    """What a module imports when it runs, and for types if asked for."""
    found: set[str] = set()
    left: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    while left:
        node = left.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not types:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            found.update({node.module or "", *(f"{node.module}.{a.name}" for a in node.names)})
        left += ast.iter_child_nodes(node)
    return found


# AGENTS.md.


def test_each_rule_names_tests_that_exist() -> None:
    rules = re.findall(r"(?m)^- (.+)$", (ROOT / "AGENTS.md").read_text("utf-8"))
    tests = [re.search(r": ((?:`tests/[\w/]+\.py`(?:, )?)+)\.$", rule) for rule in rules]

    assert rules
    assert [rule for rule, found in zip(rules, tests, strict=True) if not found] == []
    names = {name for found in tests if found for name in re.findall(r"`(.+?)`", found[1])}
    assert [name for name in names if not (ROOT / name).is_file()] == []


def test_only_one_function_moves_the_bookmark() -> None:
    found = {
        f"{path.stem}.{function}"
        for path in MODULES
        for function, node in with_functions(ast.parse(path.read_text("utf-8")))
        if stores(node, "replication_key_value")
    }

    assert found == {"state.WindowStateManager.advance"}


def with_functions(node: ast.AST, within: str = "") -> Iterable[tuple[str, ast.AST]]:
    """All nodes, each with the name of its function or class."""
    for child in ast.iter_child_nodes(node):
        yield within, child
        inner = within
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            inner = f"{within}.{child.name}".lstrip(".")
        yield from with_functions(child, inner)


def stores(node: ast.AST, key: str) -> bool:
    """Whether a node stores a value under a key, or removes it."""
    match node:
        case ast.Subscript(slice=ast.Constant(value=value), ctx=ast.Store() | ast.Del()):
            return bool(value == key)
        case ast.Dict(keys=keys):
            return any(isinstance(each, ast.Constant) and each.value == key for each in keys)
        case ast.Call(
            func=ast.Attribute(attr="setdefault" | "pop"), args=[ast.Constant(value), *_]
        ):
            return bool(value == key)
        case ast.keyword(arg=name):
            return name == key
    return False


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_an_error_raised_in_an_except_block_hides_the_one_before(path: Path) -> None:
    raised = [
        ast.unparse(node)
        for handler in nodes(path, ast.ExceptHandler)
        for node in ast.walk(handler)
        if isinstance(node, ast.Raise) and node.exc is not None
    ]

    assert [error for error in raised if not error.endswith(" from None")] == []


def test_python_backoff_is_declared_and_backoff_is_not() -> None:
    groups = [PROJECT["dependencies"], *PYPROJECT["dependency-groups"].values()]
    lines = [line for lines in groups for line in lines if isinstance(line, str)]
    names = {re.split(r"[^\w-]", line, maxsplit=1)[0] for line in lines}

    assert "python-backoff" in names
    assert "backoff" not in names


@EACH_TEST_FILE
def test_no_test_sleeps(path: Path) -> None:
    calls = {ast.unparse(call.func) for call in nodes(path, ast.Call)}
    imported = {ast.unparse(statement) for statement in nodes(path, ast.ImportFrom)}

    assert calls & {"time.sleep", "asyncio.sleep"} == set()
    assert imported & {"from time import sleep", "from asyncio import sleep"} == set()


@EACH_TEST_FILE
def test_every_test_asserts_something(path: Path) -> None:
    tests = [test for test in nodes(path, ast.FunctionDef) if test.name.startswith("test_")]

    assert [test.name for test in tests if not asserts(test)] == []


def asserts(test: ast.FunctionDef) -> bool:
    """Whether a test has an `assert`, expects an error, or calls a function `assert_…`."""
    return any(
        isinstance(node, ast.Assert)
        or (isinstance(node, ast.Name) and node.id.startswith("assert_"))
        or ast.unparse(node) in {"pytest.raises", "pytest.warns"}
        for node in ast.walk(test)
    )


# The layout of the code.

HTTP = ("http", "requests", "tap_cometly.client", "tap_cometly.transport", "urllib3")
SINGER = ("click", "singer_sdk", "tap_cometly.command", "tap_cometly.streams", "tap_cometly.tap")
BYTES = ("gzip", "io", "isal", "zlib")
JOBS = ("tap_cometly.exports", "tap_cometly.files", "tap_cometly.sync", "tap_cometly.windows")
UNKNOWN: dict[str, tuple[str, ...]] = {
    "command": (*HTTP, *JOBS, "tap_cometly.contacts"),
    "tap": (*HTTP, *JOBS, "tap_cometly.contacts"),
    "settings": SINGER,
    "schema": (*HTTP, *JOBS),
    "maps": (*HTTP, *JOBS),
    "streams": (*BYTES, "requests", "urllib3", "tap_cometly.client", "tap_cometly.windows"),
    "state": (*HTTP, *JOBS),
    "sync": (*SINGER, *BYTES, "requests"),
    "windows": (*HTTP, *SINGER, *BYTES, "logging", "time"),
    "exports": (*SINGER, *BYTES, "requests"),
    "client": (*SINGER, *JOBS),
    "files": (*SINGER, "json", "msgspec", "tap_cometly.client", "tap_cometly.contacts"),
    "contacts": (*HTTP, *SINGER, "datetime", "time"),
    "messages": (*HTTP, "tap_cometly.contacts"),
    "batches": (*HTTP, "tap_cometly.contacts"),
    "times": (*HTTP, *SINGER, *BYTES, "logging"),
    "transport": (*SINGER, *JOBS, "tap_cometly.client"),
    "signals": (*HTTP, *SINGER, *BYTES, "logging"),
    "progress": (*HTTP, *SINGER),
}


@pytest.mark.parametrize("module", UNKNOWN)
def test_a_module_imports_nothing_that_it_should_not_know(module: str) -> None:
    imported = imports(ROOT / "tap_cometly" / f"{module}.py")

    assert {
        unknown
        for unknown in UNKNOWN[module]
        for name in imported
        if name == unknown or name.startswith(f"{unknown}.")
    } == set()


@pytest.mark.parametrize("package", ["tap_cometly", "simulator"])
def test_no_package_has_an_import_cycle_not_even_for_types(package: str) -> None:
    files = {f"{package}.{path.stem}": path for path in (ROOT / package).glob("*.py")}
    graph = {name: imports(path, types=True) & files.keys() for name, path in files.items()}

    order = [*TopologicalSorter(graph).static_order()]  # raises a CycleError

    assert f"{package}.__main__" in order


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))


# Workflows.

WORKFLOWS = {path.name: path for path in (ROOT / ".github" / "workflows").glob("*.yml")}
EACH_WORKFLOW = pytest.mark.parametrize("name", WORKFLOWS)


def jobs(name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(WORKFLOWS[name].read_text("utf-8"))["jobs"]
    return found


def test_ci_tests_every_promised_version_and_the_lowest_dependencies() -> None:
    classifiers = "\n".join(PROJECT["classifiers"])
    promised = re.findall(r"(?m)^Programming Language :: Python :: (3\.\d+)$", classifiers)
    tests = jobs("test.yml")

    assert tests["test"]["strategy"]["matrix"]["python"] == promised
    assert PROJECT["requires-python"] == f">={promised[0]}"
    for job, command in (("everything", "./test.sh"), ("lowest", ".ci/lowest")):
        assert [step["run"] for step in tests[job]["steps"] if "run" in step] == [command]


@EACH_WORKFLOW
def test_every_action_is_pinned_by_its_commit_and_keeps_no_token(name: str) -> None:
    text = WORKFLOWS[name].read_text("utf-8")
    actions = re.findall(r"(?m)^\s+(?:- )?uses: (.+)$", text)

    assert actions
    for action in actions:
        assert re.fullmatch(r"[\w-]+/[\w./-]+@[0-9a-f]{40} # v[\d.]+", action), action
    assert text.count("persist-credentials: false") == text.count("actions/checkout@")


@EACH_WORKFLOW
def test_only_a_release_may_write_and_only_its_identity(name: str) -> None:
    granted = [yaml.safe_load(WORKFLOWS[name].read_text("utf-8"))["permissions"]]
    granted += [job.get("permissions", {}) for job in jobs(name).values()]

    allowed = [
        {},
        {"contents": "read"},
        *([{"id-token": "write"}] if name == "release.yml" else []),
    ]
    assert [grant for grant in granted if grant not in allowed] == []
