"""The project keeps its own rules: those of AGENTS.md, and what CI and the documents say of it."""

from __future__ import annotations

import ast
import re
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Node = TypeVar("Node", bound=ast.AST)
ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
RULES = re.findall(r"(?m)^- (.+(?:\n  .+)*)$", (ROOT / "AGENTS.md").read_text("utf-8"))
MODULES = sorted((ROOT / "tap_cometly").glob("*.py"))
TESTS = sorted((ROOT / "tests").glob("test_*.py"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
A_WORKFLOW = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
A_MODULE = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
A_TEST_FILE = pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)


def name_of(requirement: str) -> str:
    """The package that a requirement asks for."""
    return re.split(r"[^\w-]", requirement, maxsplit=1)[0].lower()


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    """The jobs of a workflow, by name."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text("utf-8"))["jobs"]
    return found


class TestRules:
    """AGENTS.md."""

    def test_each_names_the_tests_that_check_it(self) -> None:
        assert RULES
        for rule in RULES:
            end = re.search(r": ((?:`tests/[\w/]+\.py`(?:, )?)+)\.$", rule)
            assert end, f"names no test: {rule}"
            for name in re.findall(r"`(.+?)`", end[1]):
                assert (ROOT / name).is_file(), f"there is no {name}"

    def test_only_advance_moves_the_bookmark(self) -> None:
        found = {
            f"{path.stem}.{function}"
            for path in MODULES
            for function, node in with_functions(ast.parse(path.read_text("utf-8")))
            if stores(node, "replication_key_value")
        }

        assert found == {"state.WindowStateManager.advance"}

    @A_MODULE
    def test_an_error_raised_in_a_handler_hides_the_one_it_handles(self, path: Path) -> None:
        raised = [
            ast.unparse(node)
            for handler in nodes(path, ast.ExceptHandler)
            for node in ast.walk(handler)
            if isinstance(node, ast.Raise) and node.exc is not None
        ]

        assert [error for error in raised if not error.endswith(" from None")] == []

    def test_python_backoff_is_declared_and_backoff_is_not(self) -> None:
        lists = [
            PROJECT["dependencies"],
            *PROJECT["optional-dependencies"].values(),
            *PYPROJECT["dependency-groups"].values(),
        ]
        names = {name_of(line) for lines in lists for line in lines if isinstance(line, str)}

        assert "python-backoff" in names
        assert "backoff" not in names

    @A_TEST_FILE
    def test_no_test_waits(self, path: Path) -> None:
        calls = {ast.unparse(call.func) for call in nodes(path, ast.Call)}
        imports = {ast.unparse(statement) for statement in nodes(path, ast.ImportFrom)}

        assert calls & {"time.sleep", "asyncio.sleep"} == set()
        assert imports & {"from time import sleep", "from asyncio import sleep"} == set()

    @A_TEST_FILE
    def test_every_test_asserts_something(self, path: Path) -> None:
        tests = [test for test in nodes(path, ast.FunctionDef) if test.name.startswith("test_")]

        assert [test.name for test in tests if not asserts(test)] == []


class TestLayout:
    """docs/how-it-works.md: what each module knows, and what it does not import."""

    HTTP = ("http", "requests", "tap_cometly.client", "tap_cometly.transport", "urllib3")
    SINGER = ("click", "singer_sdk", "tap_cometly.streams", "tap_cometly.tap")
    BYTES = ("gzip", "io", "isal", "zlib")
    UNKNOWN: ClassVar[dict[str, tuple[str, ...]]] = {
        "tap": (*HTTP, "time"),
        "settings": SINGER,
        "schema": (*HTTP, "datetime"),
        "state": HTTP,
        "sync": (*SINGER, *BYTES, "requests"),
        "windows": (*HTTP, *SINGER, *BYTES, "logging", "time"),
        "exports": (*SINGER, *BYTES, "requests"),
        "client": (*SINGER, "tap_cometly.exports", "tap_cometly.windows"),
        "transport": (*SINGER, "tap_cometly.client", "tap_cometly.files"),
        "files": (*SINGER, "json", "msgspec", "tap_cometly.client", "tap_cometly.contacts"),
        "contacts": (*HTTP, *SINGER, "datetime", "time"),
        "streams": ("requests", "urllib3", *BYTES),
        "messages": (*HTTP, "tap_cometly.contacts"),
        "progress": (*HTTP, *SINGER),
        "times": (*HTTP, *SINGER, *BYTES, "logging"),
    }

    @pytest.mark.parametrize("module", UNKNOWN)
    def test_a_module_imports_nothing_that_it_should_not_know(self, module: str) -> None:
        known = imports(ROOT / "tap_cometly" / f"{module}.py")

        assert [
            name
            for name in self.UNKNOWN[module]
            if any(found == name or found.startswith(f"{name}.") for found in known)
        ] == []

    @pytest.mark.parametrize("package", ["tap_cometly", "simulator"])
    def test_no_modules_import_each_other_in_a_circle(self, package: str) -> None:
        graph = {
            f"{package}.{path.stem}": {
                name for name in imports(path, for_types=True) if name.startswith(f"{package}.")
            }
            for path in (ROOT / package).glob("*.py")
            if path.stem != "__init__"
        }
        known = {name: targets & graph.keys() for name, targets in graph.items()}

        assert list(TopologicalSorter(known).static_order())  # raises CycleError

    @A_MODULE
    def test_a_module_says_what_it_is_for(self, path: Path) -> None:
        assert ast.get_docstring(ast.parse(path.read_text("utf-8")))


def imports(path: Path, *, for_types: bool = False) -> set[str]:
    """What a module imports when it runs; and `for_types` alone, if asked for."""
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    while nodes:
        node = nodes.pop()
        is_for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if is_for_types and not for_types:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            found.update({node.module or "", *(f"{node.module}.{a.name}" for a in node.names)})
        nodes += ast.iter_child_nodes(node)
    return found


class TestWorkflows:
    """.github/workflows."""

    def test_every_version_that_is_promised_is_tested(self) -> None:
        prefix = "Programming Language :: Python :: "
        promised = [
            text.removeprefix(prefix)
            for text in PROJECT["classifiers"]
            if re.fullmatch(re.escape(prefix) + r"3\.\d+", text)
        ]
        tests = jobs(ROOT / ".github" / "workflows" / "test.yml")

        assert tests["test"]["strategy"]["matrix"]["python"] == promised
        assert PROJECT["requires-python"] == f">={promised[0]}"

    def test_everything_is_tested_by_the_readmes_command(self) -> None:
        job = jobs(ROOT / ".github" / "workflows" / "test.yml")["everything"]

        assert [step["run"] for step in job["steps"] if "run" in step] == ["./test.sh"]

    def test_the_lowest_versions_are_tested_as_contributing_says(self) -> None:
        job = jobs(ROOT / ".github" / "workflows" / "test.yml")["lowest"]

        runs = [step["run"] for step in job["steps"] if "run" in step]
        assert runs == [".ci/lowest"]
        assert "`.ci/lowest`" in CONTRIBUTING
        pythons = [step["with"].get("python-version") for step in job["steps"] if "with" in step]
        assert f">={pythons[-1]}" == PROJECT["requires-python"]

    @A_WORKFLOW
    def test_every_action_is_pinned_by_its_commit(self, path: Path) -> None:
        uses = re.findall(r"(?m)^\s+(?:- )?uses: (.+)$", path.read_text("utf-8"))

        assert uses
        for action in uses:
            assert re.fullmatch(r"[\w-]+/[\w./-]+@[0-9a-f]{40} # v[\d.]+", action), action

    @A_WORKFLOW
    def test_nothing_may_be_written_but_a_release(self, path: Path) -> None:
        granted = [yaml.safe_load(path.read_text("utf-8"))["permissions"]]
        granted += [job.get("permissions", {}) for job in jobs(path).values()]

        allowed = [{}, {"contents": "read"}]
        if path.name == "release.yml":
            allowed.append({"id-token": "write"})
        assert [grant for grant in granted if grant not in allowed] == []

    @A_WORKFLOW
    def test_no_checkout_keeps_its_token(self, path: Path) -> None:
        for job in jobs(path).values():
            for step in job["steps"]:
                if step.get("uses", "").startswith("actions/checkout@"):
                    assert step["with"]["persist-credentials"] is False


def nodes(path: Path, kind: type[Node]) -> Iterator[Node]:
    """The parts of a module that are of a kind."""
    return (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, kind))


def with_functions(node: ast.AST, within: str = "") -> Iterable[tuple[str, ast.AST]]:
    """All parts of some code, each with the name of the function or class that it is in."""
    for child in ast.iter_child_nodes(node):
        yield within, child
        name = getattr(child, "name", None)
        is_scope = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        inner = f"{within}.{name}".lstrip(".") if is_scope else within
        yield from with_functions(child, inner)


def stores(node: ast.AST, key: str) -> bool:
    """Whether some code puts a value under a key, or takes it away."""
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


def asserts(test: ast.FunctionDef) -> bool:
    """Whether a test has an `assert`, expects an error, or leaves it to a function `assert_…`."""
    return any(
        isinstance(node, ast.Assert)
        or (isinstance(node, ast.Name) and node.id.startswith("assert_"))
        or ast.unparse(node) in {"pytest.raises", "pytest.warns"}
        for node in ast.walk(test)
    )
