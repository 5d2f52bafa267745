"""What a scorer may be given, and what may come of it.

Nine of reasoning-gym's scorers run the answer as Python: four call `eval` on it, with the stored answer in reach, and
five hand it to sympy's `parse_expr`, which evaluates it too. Their answers are looked at first, so that none is more
than what was asked for: a list of literals, a formula, an arithmetic expression.
"""

from __future__ import annotations

import ast
import math
import re
from numbers import Real

LONGEST = 1 << 16
"""Characters of an answer; a longer one is not judged."""
LITERALS = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
"""`eval(answer)`: where it is an expression, it must be a literal."""
FORMULAS = frozenset({"intermediate_integration", "polynomial_multiplication", "simple_integration"})
"""`parse_expr(answer)`: numbers, operators, one-letter names and elementary functions."""
ARITHMETIC = frozenset({"countdown", "puzzle24"})
"""`parse_expr(answer)` of whole numbers, whose digits are counted: nothing else may stand in it, as 0x18 would not be
seen, and neither may a power or a rest, which the questions do not offer."""

_FORMULA = re.compile(r"[\w\s+\-*/^()=.,|]*")
_ATTRIBUTE = re.compile(r"\.\s*[^\W\d]")
_WORD = re.compile(r"[^\W\d]\w*")
_NAMES = (
    "sin cos tan cot sec csc asin acos atan acot asec acsc sinh cosh tanh asinh acosh atanh exp log ln sqrt pi abs Abs"
)
_FUNCTIONS = frozenset(_NAMES.split())
_SUM = re.compile(r"[0-9\s+\-*/()]*")


def objection(generator: str, answer: str) -> str:
    """Why the answer must not reach the scorer; empty if it may."""
    if len(answer) > LONGEST:
        return f"the answer is longer than {LONGEST} characters"
    if generator in LITERALS:
        return _code(answer)
    if generator in FORMULAS:
        return _strange_formula(answer)
    if generator in ARITHMETIC and ("**" in answer or "//" in answer or not _SUM.fullmatch(answer)):
        return "the answer is not an arithmetic expression of whole numbers"
    return ""


def _code(answer: str) -> str:
    """What is no expression at all raises in `eval`, which the scorer knows."""
    try:
        tree = ast.parse(answer.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    if isinstance(tree.body, ast.Name) and tree.body.id.isupper():
        return ""  # an answer of letters, which happens to be a name
    allowed = (ast.Expression, ast.List, ast.Tuple, ast.Constant, ast.Load, ast.UnaryOp, ast.USub)
    return "" if all(isinstance(node, allowed) for node in ast.walk(tree)) else "the answer is code"


def _strange_formula(answer: str) -> str:
    if "__" in answer or not _FORMULA.fullmatch(answer) or _ATTRIBUTE.search(answer):
        return "the answer is not a formula"
    unknown = next((word for word in _WORD.findall(answer) if len(word) > 1 and word not in _FUNCTIONS), None)
    return f"the answer names {unknown[:40]!r}, which no formula needs" if unknown else ""


def judged(score: object) -> tuple[float, str]:
    """The score as a reward, and what was wrong with it: nothing, or the reward is 0."""
    if not isinstance(score, Real) or not math.isfinite(score):
        return 0.0, f"the scorer returned {str(score)[:80]!r}, which is no number"
    number = float(score)
    if not 0.0 <= number <= 1.0:
        return 0.0, f"the scorer returned {number:g}, which is not in 0..1"
    return number, ""
