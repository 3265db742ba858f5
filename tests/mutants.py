"""One change of a source, addressed by function and code and not by text: lines, spaces and comments may change.

The code is matched as `ast.unparse` writes it, in a function named by its module and qualified name (`sets.fit`,
`policy.Policy.apply`, `blocks.over.work` of a function inside one). Where it is not found as it stands, it is matched
with the function's local names replaced one for one, so that a local name may change too; names of the module, of
attributes and of keywords must be as they are. What is not there exactly once is refused in one line.
"""

import ast
import builtins
import copy
from dataclasses import dataclass

Function = ast.FunctionDef | ast.AsyncFunctionDef


class DoesNotApply(Exception):
    """A mutant's function or code is not in the source, or more than once."""


@dataclass(frozen=True)
class Mutant:
    """A change that voids a promise, and the test that must fail.

    Attributes:
        function: The code stands in this function: `module.name`, `module.Class.name` or `module.name.inner`.
        old: An expression or a statement, once in the function.
        new: What replaces it; its names are those of `old`, of the function and of the module.
        test: The id of the test, as pytest writes it.
    """

    function: str
    old: str
    new: str
    test: str

    @property
    def module(self) -> str:
        return self.function.split(".")[0]


def mutated(source: str, mutant: Mutant) -> str:
    """The source of `mutant.module` with its change, as `ast.unparse` writes it.

    Raises:
        DoesNotApply: Naming the function and the code.
    """
    tree = ast.parse(source)
    function = _function(tree, mutant)
    fixed = _module_names(tree) | set(dir(builtins))
    old = _code(mutant.old)
    of_its_type = [node for node in ast.walk(function) if type(node) is type(old)]
    matches = [node for node in of_its_type if ast.unparse(node) == ast.unparse(old)]
    if not matches:
        matches = [node for node in of_its_type if _numbered(node, fixed) == _numbered(old, fixed)]
    if len(matches) != 1:
        raise DoesNotApply(f"{mutant.function} must hold `{mutant.old}` once, holds it {len(matches)} times")
    today = dict(zip(_locals(old, fixed), _locals(matches[0], fixed), strict=True))
    new = _Renamed(today).visit(_code(mutant.new))
    unknown = _names(new) - _names(function) - fixed - _names(new, ast.Store)
    if unknown:
        raise DoesNotApply(f"{mutant.function} knows no {', '.join(sorted(unknown))}, which `{mutant.new}` reads")
    _Replaced(matches[0], new).visit(tree)
    return ast.unparse(ast.fix_missing_locations(tree))


def _function(tree: ast.Module, mutant: Mutant) -> Function:
    scope: ast.Module | ast.ClassDef | Function = tree
    for name in mutant.function.split(".")[1:]:
        inner = [
            node
            for node in ast.walk(scope)
            if isinstance(node, Function | ast.ClassDef) and node.name == name and node is not scope
        ]
        if len(inner) != 1:
            raise DoesNotApply(f"{mutant.function} must be defined once, is {len(inner)} times")
        scope = inner[0]
    assert isinstance(scope, Function), f"{mutant.function} is no function"
    return scope


def _code(text: str) -> ast.AST:
    """An expression, or else one statement."""
    (statement,) = ast.parse(text).body
    return statement.value if isinstance(statement, ast.Expr) else statement


def _module_names(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        else:
            names |= _names(node, ast.Store)
    return names


def _names(node: ast.AST, context: type[ast.expr_context] = ast.expr_context) -> set[str]:
    """The names in a piece of code, and the arguments of the functions in it."""
    names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, context)}
    return names | {part.arg for part in ast.walk(node) if isinstance(part, ast.arg)}


def _locals(node: ast.AST, fixed: set[str]) -> list[str]:
    """The names that are no names of the module, in the order in which they first stand."""
    names = [part.id for part in ast.walk(node) if isinstance(part, ast.Name) and part.id not in fixed]
    return list(dict.fromkeys(names))


def _numbered(node: ast.AST, fixed: set[str]) -> str:
    """The code with its local names replaced by numbers, which is the same for code that differs in them alone."""
    numbers = {name: f"local_{number}" for number, name in enumerate(_locals(node, fixed))}
    return ast.unparse(_Renamed(numbers).visit(copy.deepcopy(node)))


class _Renamed(ast.NodeTransformer):
    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.names.get(node.id, node.id), node.ctx)


class _Replaced(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)
