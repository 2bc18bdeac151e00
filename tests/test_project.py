"""The rules of AGENTS.md, the layers of the code, and the workflows."""

from __future__ import annotations

import ast
import re
import tomllib
from graphlib import CycleError, TopologicalSorter
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
TESTS = ROOT / "tests"


def each_file(paths: Iterable[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", sorted(paths), ids=lambda path: path.stem)


def nodes(path: Path, kind: type[Node]) -> Iterator[Node]:
    tree = ast.parse(path.read_text("utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, kind))


def imports(path: Path, *, types: bool = False) -> set[str]:
    """What a module imports at run time, and with `types` also for type checking."""
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
    """All nodes, each with the qualified name of the function or class that contains it."""
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


@each_file(MODULES)
def test_an_error_raised_in_an_except_block_is_raised_from_none(path: Path) -> None:
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


@each_file(TESTS.glob("*.py"))
def test_no_test_sleeps(path: Path) -> None:
    used = {ast.unparse(attribute) for attribute in nodes(path, ast.Attribute)}

    assert {"time.sleep", "asyncio.sleep"} & (used | imports(path)) == set()


@each_file(TESTS.rglob("test_*.py"))
def test_every_test_asserts_something(path: Path) -> None:
    tests = [test for test in nodes(path, ast.FunctionDef) if test.name.startswith("test_")]

    assert [test.name for test in tests if not asserts(test)] == []


def asserts(test: ast.FunctionDef) -> bool:
    """Whether a test asserts, expects an error or warning, or runs a program `CHECK_…`."""
    return any(
        isinstance(node, ast.Assert)
        or (isinstance(node, ast.Name) and node.id.startswith(("assert_", "CHECK_")))
        or ast.unparse(node) in {"pytest.raises", "pytest.warns"}
        for node in ast.walk(test)
    )


# The layers of the code.

HTTP = ("http", "requests", "tap_cometly.client", "tap_cometly.transport", "urllib3")
SINGER = ("click", "singer_sdk", "tap_cometly.command", "tap_cometly.streams", "tap_cometly.tap")
BYTES = ("gzip", "io", "isal", "zlib")
JOBS = ("tap_cometly.exports", "tap_cometly.files", "tap_cometly.sync", "tap_cometly.windows")
FORBIDDEN: dict[str, tuple[str, ...]] = {
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


@pytest.mark.parametrize("module", FORBIDDEN)
def test_a_module_imports_only_what_its_layer_allows(module: str) -> None:
    imported = imports(ROOT / "tap_cometly" / f"{module}.py")

    assert {
        forbidden
        for forbidden in FORBIDDEN[module]
        for name in imported
        if name == forbidden or name.startswith(f"{forbidden}.")
    } == set()


@pytest.mark.parametrize("package", ["tap_cometly", "simulator"])
def test_a_package_has_no_import_cycle_even_for_types(package: str) -> None:
    files = {f"{package}.{path.stem}": path for path in (ROOT / package).glob("*.py")}
    graph = {name: imports(path, types=True) & files.keys() for name, path in files.items()}

    assert graph[f"{package}.__main__"]
    assert cycle_in(graph) == []


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


# Workflows.

WORKFLOWS = {path.name: path for path in (ROOT / ".github" / "workflows").glob("*.yml")}
EACH_WORKFLOW = pytest.mark.parametrize("name", WORKFLOWS)


def jobs(name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(WORKFLOWS[name].read_text("utf-8"))["jobs"]
    return found


def test_ci_tests_every_declared_python_version_and_the_lowest_dependencies() -> None:
    classifiers = "\n".join(PROJECT["classifiers"])
    declared = re.findall(r"(?m)^Programming Language :: Python :: (3\.\d+)$", classifiers)
    tests = jobs("test.yml")

    assert tests["test"]["strategy"]["matrix"]["python"] == declared
    assert PROJECT["requires-python"] == f">={declared[0]}"
    for job, command in (("everything", "./test.sh"), ("lowest", ".ci/lowest")):
        assert [step["run"] for step in tests[job]["steps"] if "run" in step] == [command]


@EACH_WORKFLOW
def test_every_action_is_pinned_to_a_commit_and_no_checkout_keeps_its_token(name: str) -> None:
    text = WORKFLOWS[name].read_text("utf-8")
    actions = re.findall(r"(?m)^\s+(?:- )?uses: (.+)$", text)

    assert actions
    for action in actions:
        assert re.fullmatch(r"[\w-]+/[\w./-]+@[0-9a-f]{40} # v[\d.]+", action), action
    assert text.count("persist-credentials: false") == text.count("actions/checkout@")


@EACH_WORKFLOW
def test_only_the_release_workflow_may_write_its_id_token(name: str) -> None:
    granted = [yaml.safe_load(WORKFLOWS[name].read_text("utf-8"))["permissions"]]
    granted += [job.get("permissions", {}) for job in jobs(name).values()]

    allowed = [
        {},
        {"contents": "read"},
        *([{"id-token": "write"}] if name == "release.yml" else []),
    ]
    assert [grant for grant in granted if grant not in allowed] == []
