"""Every promise of the page names tests, and the tests are there."""

import ast
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
ROWS = [
    line.split("|")[1:3]
    for line in (DOCS / "promises.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| promise")
]
LINKS = [
    (name, path)
    for _, held_by in ROWS
    for name, path in re.findall(r"\[`(test_\w+)`\]\((\.\./tests/\S+\.py)\)", held_by)
]


@pytest.mark.parametrize(("name", "path"), LINKS)
def test_the_test_that_holds_a_promise_exists(name: str, path: str) -> None:
    tree = ast.parse((DOCS / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("promise", "held_by"), ROWS, ids=lambda text: text.strip()[:60])
def test_every_promise_is_held_by_a_test(promise: str, held_by: str) -> None:
    assert promise.strip().endswith(".")
    assert "[`test_" in held_by
