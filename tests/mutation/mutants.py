"""The mutants of a module: mutmut's operators on the bodies of its functions, and a few of our own on SQL.

Left out, since nobody should test it: what is inside `raise` (messages), `assert` and `log_event`, other strings,
annotations, and `strict=` and `usedforsecurity=`, which change nothing in a program that is right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators, operator_string

SQL = re.compile(
    r"\b(SELECT|INSERT|UPDATE|DELETE|WHERE|JOIN|ORDER BY|CONFLICT|select|insert|update|delete)\b"
)
SQL_SWAPS = (
    (r" AND ", " OR "),
    (r" < ", " <= "),
    (r" <= ", " < "),
    (r" > ", " >= "),
    (r" >= ", " > "),
    (r" = ", " <> "),
    (r" <> ", " = "),
    (r" \+ ", " - "),
    (r"\bmin\(", "max("),
    (r"\bmax\(", "min("),
    (r"\bNOT EXISTS\b", "EXISTS"),
    (r"\bIS NULL\b", "IS NOT NULL"),
    (r" DESC\b", ""),
    (r" LEFT JOIN ", " JOIN "),
    (r"\bORDER BY (\w+\.)?\w+", r"ORDER BY 1=1"),
)
SILENT_KEYWORDS = {"strict", "usedforsecurity"}


@dataclass(frozen=True)
class Mutant:
    """One change of one function.

    Attributes:
        lines: first and last line of what is changed.
        body: first and last line of the function.
    """

    path: str
    function: str
    lines: tuple[int, int]
    body: tuple[int, int]
    old: str
    new: str
    source: Any

    def apply(self, module: ModuleType) -> bool:
        """Put the changed code into the function that everybody holds already; tell whether that is possible."""
        try:
            changed = compile(self.source(), self.path, "exec", dont_inherit=True)
            target = _function(module, self.function)
            target.__code__ = _code_of(changed, self.function)
        except (SyntaxError, ValueError, LookupError, AttributeError):
            return False
        return True


def mutants_of(path: str, root: Path) -> list[Mutant]:
    """Return every mutant of the module at `path`."""
    wrapper = MetadataWrapper(cst.parse_module((root / path).read_text()))
    module, positions = wrapper.module, wrapper.resolve(PositionProvider)
    found: dict[tuple[str, str], Mutant] = {}

    def lines(node: cst.CSTNode) -> tuple[int, int]:
        return positions[node].start.line, positions[node].end.line

    for name, function in _functions(module, ""):
        for node in _mutable(function.body):
            for new in _changed(node):

                def source(node: cst.CSTNode = node, new: cst.CSTNode = new) -> str:
                    return module.deep_replace(node, new).code

                old, changed = module.code_for_node(node), module.code_for_node(new)
                where = positions.get(node)
                at = lines(node) if where is not None else lines(function)
                mutant = Mutant(path, name, at, lines(function), old, changed, source)
                found.setdefault((f"{name} {where}", changed), mutant)
    return list(found.values())


def _functions(node: cst.CSTNode, prefix: str) -> Iterator[tuple[str, cst.FunctionDef]]:
    for child in node.children:
        if isinstance(child, cst.FunctionDef):
            yield prefix + child.name.value, child
        elif isinstance(child, cst.ClassDef):
            yield from _functions(child.body, f"{prefix}{child.name.value}.")
        elif not isinstance(child, cst.BaseExpression):
            yield from _functions(child, prefix)


def _mutable(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    silent = isinstance(node, (cst.Raise, cst.Assert, cst.Annotation, cst.Decorator, cst.Param))
    if isinstance(node, cst.Arg) and node.keyword is not None:
        silent |= node.keyword.value in SILENT_KEYWORDS
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Name):
        silent |= node.func.value in {"log_event", "cast"}
    if silent:
        return
    yield node
    for child in node.children:
        yield from _mutable(child)


def _changed(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    if isinstance(node, cst.SimpleString):
        yield from _changed_sql(node)
    for kind, operator in mutation_operators:
        if operator is not operator_string and isinstance(node, kind):
            for new in operator(node):
                if not (isinstance(new, cst.Call) and _loses_silent_keyword(node, new)):
                    yield new


def _loses_silent_keyword(node: Any, new: cst.Call) -> bool:
    def silent(call: cst.Call) -> list[Any]:
        return [arg.value for arg in call.args if arg.keyword and arg.keyword.value in SILENT_KEYWORDS]

    return isinstance(node, cst.Call) and silent(node) != silent(new)


def _changed_sql(node: cst.SimpleString) -> Iterator[cst.SimpleString]:
    if not SQL.search(node.value) or node.value.startswith('"""'):
        return
    for pattern, replacement in SQL_SWAPS:
        for match in re.finditer(pattern, node.value):
            value = node.value[: match.start()] + match.expand(replacement) + node.value[match.end() :]
            yield node.with_changes(value=value)


def _function(module: ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = vars(found)[part]
    while not hasattr(found, "__code__") or hasattr(found, "__wrapped__"):
        inner = [getattr(found, name, None) for name in ("__wrapped__", "__func__", "fget", "func")]
        found = next(one for one in [*inner, None] if one is not None)
    return found


def _code_of(code: CodeType, name: str) -> CodeType:
    waiting = [code]
    for one in waiting:
        if one.co_qualname == name:
            return one
        waiting += [constant for constant in one.co_consts if isinstance(constant, CodeType)]
    raise LookupError(name)
