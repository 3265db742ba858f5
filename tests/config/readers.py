"""Which config keys the source reads: attributes of expressions whose type is a section, found in the syntax trees.

What counts as read: `expression.key` where the expression is known to be a section, outside of the files that declare
keys, in which a validator would count. Known are annotated arguments and attributes, what `parse` and `load` give, the
keys of a known section that are sections, the attributes of an argument whose class annotates them as sections, and
names bound to any of these. A dump of a section reads none of its keys.
What cannot be told is not counted, so that a mistake here is a failing test and not a key without an effect.
"""

import ast
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from natix_lib.config import Config
from natix_lib.config.section import Section

Read = tuple[type[Section], str]


@dataclasses.dataclass
class Names:
    """Names of a scope that are sections, over those of the scopes around it, and of `self` of the class around it."""

    sections: dict[str, type[Section]]
    attributes: dict[str, type[Section]]
    holders: dict[str, dict[str, type[Section]]] = dataclasses.field(default_factory=dict)


def owner(section: type[Section], key: str) -> type[Section]:
    """The section that declares a key which `section` may have inherited."""
    return next(base for base in reversed(section.__mro__) if key in getattr(base, "model_fields", {}))


def keys_below(section: type[Section]) -> Iterator[Read]:
    """All keys of a section and of those inside of it."""
    for key, field in section.model_fields.items():
        yield owner(section, key), key
        for inner in sections_in(field.annotation):
            yield from keys_below(inner)


def sections_in(annotation: Any) -> Iterator[type[Section]]:
    """The sections that a type names, through unions, lists and dicts."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from sections_in(argument)


def reads(sources: Iterable[str], known: Iterable[type[Section]]) -> set[Read]:
    """The keys that Python sources read.

    Args:
        sources: Texts of modules.
        known: Sections that a module may name, as it imports them or as `config.Name`.
    """
    by_name = {section.__name__: section for section in known}
    readers = [(_Reader(_imported(tree, by_name)), tree) for tree in map(ast.parse, sources)]
    holders: dict[str, dict[str, type[Section]]] = {}
    for reader, tree in readers:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and (attributes := reader.annotated(node)):
                holders[node.name] = attributes
    return {key for reader, tree in readers for key in reader.read(tree, holders)}


def _imported(tree: ast.AST, by_name: dict[str, type[Section]]) -> dict[str, type[Section]]:
    """What a module calls the sections: `Scrc`, `config.Scrc`; a `Model` of another library is none."""
    names: dict[str, type[Section]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("natix_lib.config"):
            names |= {alias.asname or alias.name: by_name[alias.name] for alias in node.names if alias.name in by_name}
        if isinstance(node, ast.ImportFrom) and node.module == "natix_lib":
            prefixes = [alias.asname or alias.name for alias in node.names if alias.name == "config"]
            names |= {f"{prefix}.{name}": section for prefix in prefixes for name, section in by_name.items()}
    return names


class _Reader:
    def __init__(self, imported: dict[str, type[Section]]) -> None:
        self.imported = imported
        self.holders: dict[str, dict[str, type[Section]]] = {}
        self.read_keys: set[Read] = set()

    def read(self, tree: ast.AST, holders: dict[str, dict[str, type[Section]]]) -> set[Read]:
        """The keys that a module reads; `holders` are classes with attributes that are sections."""
        self.holders = holders
        self._scope(tree, Names({}, {}))
        return self.read_keys

    def annotated(self, scope: ast.ClassDef) -> dict[str, type[Section]]:
        """Attributes that a class annotates as sections."""
        lines = [node for node in scope.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
        named = {ast.unparse(node.target): self._named(node.annotation) for node in lines}
        return {name: section for name, section in named.items() if section}

    def _scope(self, node: ast.AST, names: Names) -> None:
        """Read a module, class or function in its order, its inner scopes last."""
        inner: list[ast.AST] = []
        for child in ast.iter_child_nodes(node):
            self._node(child, names, inner)
        for scope in inner:
            if isinstance(scope, ast.ClassDef):
                self._scope(scope, Names(dict(names.sections), self._attributes(scope), names.holders))
            else:
                sections, holders = names.sections | self._arguments(scope), names.holders | self._held(scope)
                self._scope(scope, Names(sections, names.attributes, holders))

    def _node(self, node: ast.AST, names: Names, inner: list[ast.AST]) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            inner.append(node)
            return
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            section = self._type(node.value, names)
            if section and node.attr in section.model_fields:
                self.read_keys.add((owner(section, node.attr), node.attr))
        for child in ast.iter_child_nodes(node):
            self._node(child, names, inner)
        if isinstance(node, ast.Assign):
            for target, value in _pairs(node):
                section = self._type(value, names)
                if isinstance(target, ast.Name) and section:
                    names.sections[target.id] = section
                elif isinstance(target, ast.Name):
                    names.sections.pop(target.id, None)

    def _type(self, node: ast.expr, names: Names) -> type[Section] | None:
        """The section that an expression is."""
        if isinstance(node, ast.Name):
            return names.sections.get(node.id)
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                return names.attributes.get(node.attr)
            if isinstance(node.value, ast.Name) and node.value.id in names.holders:
                return names.holders[node.value.id].get(node.attr)
            section = self._type(node.value, names)
            field = section.model_fields.get(node.attr) if section else None
            return next(sections_in(field.annotation), None) if field else None
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called.rpartition(".")[2] == "parse" and node.args:
                return self.imported.get(ast.unparse(node.args[0]))
            return Config if called == "config.load" else self.imported.get(called)
        return None

    def _named(self, annotation: ast.expr | None) -> type[Section] | None:
        """The section that an annotation names, alone or with None."""
        parts = ast.unparse(annotation).split(" | ") if annotation else []
        return next((self.imported[part] for part in parts if part in self.imported), None)

    def _arguments(self, scope: ast.AST) -> dict[str, type[Section]]:
        named = {argument.arg: self._named(argument.annotation) for argument in _every_argument(scope)}
        return {name: section for name, section in named.items() if section}

    def _held(self, scope: ast.AST) -> dict[str, dict[str, type[Section]]]:
        """Arguments whose class has sections as attributes."""
        named = {a.arg: ast.unparse(a.annotation) for a in _every_argument(scope) if a.annotation}
        return {name: self.holders[text] for name, text in named.items() if text in self.holders}

    def _attributes(self, scope: ast.ClassDef) -> dict[str, type[Section]]:
        """Attributes of `self` that are annotated, or assigned from an annotated argument."""
        attributes: dict[str, type[Section] | None] = {**self.annotated(scope)}
        for node in scope.body:
            if isinstance(node, ast.FunctionDef):
                arguments = self._arguments(node)
                for target, value in (pair for line in ast.walk(node) for pair in _pairs(line)):
                    if ast.unparse(target).startswith("self.") and isinstance(value, ast.Name):
                        attributes[ast.unparse(target).removeprefix("self.")] = arguments.get(value.id)
        return {name: section for name, section in attributes.items() if section}


def _every_argument(scope: ast.AST) -> list[ast.arg]:
    arguments = getattr(scope, "args", None)
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs] if arguments else []


def _pairs(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Targets and values of an assignment, those of tuples one by one."""
    if not isinstance(node, ast.Assign):
        return
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from zip(target.elts, node.value.elts, strict=False)
        else:
            yield target, node.value
