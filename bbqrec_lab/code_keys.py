"""Hashes of the code that makes a result, for its key, so changed code never loads old results.

A hash covers the named modules and every module of this project that they import, directly or not. It is computed from
the parsed code, so comments, docstrings and layout do not count.
"""

import ast
import hashlib
from collections.abc import Collection
from functools import cache
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # the folder that contains both packages
PACKAGES = ("bbqrec_core", "bbqrec_lab")
DIGITS = 32  # hex digits of a key, 128 bits


def code_hash(*modules: str, alone: Collection[str] = (), root: Path = ROOT) -> str:
    """Hash of the code of modules (dotted names) and of the project modules that they import, 32 hex digits.

    Args: alone: modules that count without their imports. root: the folder that contains the packages.
    Raises: FileNotFoundError for a module that does not exist.
    """
    return _hash(modules, tuple(alone), root)


@cache
def _hash(modules: tuple[str, ...], alone: tuple[str, ...], root: Path) -> str:
    found = set(alone)
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imported(name, root)
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(f"{name}\n{ast.unparse(_bare(_parsed(name, root)))}\n".encode())
    return digest.hexdigest()[:DIGITS]


def _file(name: str, root: Path) -> Path:
    """The file of a module or package."""
    path = root.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _parsed(name: str, root: Path) -> ast.Module:
    return ast.parse(_file(name, root).read_text(encoding="utf-8"))


def _bare(tree: ast.Module) -> ast.Module:
    """The tree without its docstrings."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = body[1:] or [ast.Pass()]
    return tree


def _imported(name: str, root: Path) -> list[str]:
    """The project modules that a module imports anywhere; for a package, the modules that define the names."""
    found = []
    for node in ast.walk(_parsed(name, root)):
        if not isinstance(node, ast.ImportFrom):
            continue
        source = _absolute(node, name, root)
        if source.split(".")[0] in PACKAGES:
            found += [_home(source, alias.name, root) for alias in node.names]
    return found


def _absolute(node: ast.ImportFrom, name: str, root: Path) -> str:
    """The absolute dotted name of an import in module `name`."""
    if not node.level:
        return node.module or ""
    is_package = _file(name, root).name == "__init__.py"
    parts = name.split(".")
    above = parts[: len(parts) - node.level + is_package]
    return ".".join([*above, node.module] if node.module else above)


def _home(source: str, name: str, root: Path) -> str:
    """The module that defines `name` of `from source import name`; the `__init__` of a package is followed."""
    if _file(source, root).name != "__init__.py":
        return source
    submodule = f"{source}.{name}"
    if _file(submodule, root).exists():
        return submodule
    for node in ast.walk(_parsed(source, root)):
        for alias in node.names if isinstance(node, ast.ImportFrom) else ():
            if name == (alias.asname or alias.name):
                return _home(_absolute(node, source, root), alias.name, root)
    return source


def packages_hash() -> str:
    """Hash of the version and the code of both packages, 32 hex digits."""
    files = [file for name in PACKAGES for file in (ROOT / name).rglob("*.py")]
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files}
    code = code_hash(alone=sorted(names), root=ROOT)
    return hashlib.sha256(f"{version('bbqrec')}\n{code}".encode()).hexdigest()[:DIGITS]
