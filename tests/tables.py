"""Reads tables of sentences, each with the tests that show it.

A line begins with a dash; below it stand its tests, as ``file.py::name``, or as
``file.py::name[id]`` where it is one of several.
"""

import ast
import re
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
NAME = re.compile(r"``([\w/]+\.py)::(\w+)(?:\[([^`]+)\])?``")


@cache
def tree_of(path):
    return ast.parse((HERE / path).read_text("utf-8"))


@cache
def names_of(path):
    """The names of the tests of one file."""
    return {
        node.name
        for node in tree_of(path).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@cache
def words_of(path):
    """The texts in one file: what may be the id of one of several tests."""
    nodes = ast.walk(tree_of(path))
    return {node.value for node in nodes if isinstance(node, ast.Constant)}


def missing(text):
    """What is named in ``text`` and is no test."""
    return [
        f"{path}::{name}" + (f"[{id}]" if id else "")
        for path, name, id in NAME.findall(text)
        if not (HERE / path).is_file()
        or name not in names_of(path)
        or (id and id not in words_of(path))
    ]


def misspelt(text):
    """How many names of tests in ``text`` are not written as they are read."""
    return text.count("::test_") - len(NAME.findall(text))


def sections(text):
    """Pairs of a title, underlined by = or -, and what stands below it."""
    parts = re.split(r"^([^\n]+)\n(?:=+|-+)\n\n", text, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def lines(text):
    """The lines of a section: each begins with a dash."""
    return re.split(r"^- ", text, flags=re.MULTILINE)[1:]
