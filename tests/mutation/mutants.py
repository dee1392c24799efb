"""Small faults for C++ and Python sources, in an order that a seed and the code itself decide.

A mutant is one textual change of one line. Its rank is a hash of the file's name, the line's text
and the change, so that a mutant keeps its place, and its name, while other lines come and go.
"""

from __future__ import annotations

import ast
import hashlib
import io
import re
import tokenize
from collections.abc import Iterator
from typing import NamedTuple

SEED = "1"


class Mutant(NamedTuple):
    """Characters [`begin`, `end`) of `file` become `text`."""

    id: str
    file: str
    line: int
    operator: str
    before: str
    after: str
    begin: int
    end: int
    text: str

    def apply(self, source: str) -> str:
        return source[: self.begin] + self.text + source[self.end :]


class Change(NamedTuple):
    operator: str
    begin: int
    end: int
    text: str


def swaps(*pairs: tuple[str, str]) -> dict[str, str]:
    return {a: b for pair in pairs for a, b in (pair, pair[::-1])}


COMPARE = swaps(("<", "<="), (">", ">="), ("==", "!="))
ARITHMETIC = {"+": "-", "-": "+", "*": "+", "/": "*", "%": "/", "<<": ">>", ">>": "<<"}
LOGIC = swaps(("&&", "||"), ("&", "|"))
# A word for the one that it is easily mistaken for.
CPP_WORDS = swaps(
    ("ldx", "ldy"),
    ("stride_n", "stride_k"),
    ("line_stride", "panel_stride"),
    ("bias_row", "bias_vector"),
    ("y_row", "y_vector"),
    ("rows", "cols"),
    ("begin", "end"),
    ("min", "max"),
    ("fma", "fnma"),
    ("unpacklo", "unpackhi"),
    ("true", "false"),
    ("memory_order_acquire", "memory_order_relaxed"),
) | {"memory_order_release": "memory_order_relaxed", "continue": "break"}
PYTHON_WORDS = swaps(("and", "or"), ("True", "False"), ("min", "max"), ("any", "all"))
# Calls whose arguments are told apart by their order alone: of select the last two, else the first.
ORDERED_CALLS = re.compile(r"\b(less|_mm\w*_(?:sub|div|unpack\w\w|shuffle|blendv?)_\w+|select)\(")


def integer(text: str) -> str:
    """The next integer; of a mask in hexadecimal, the one without its lowest set bit."""
    digits, suffix = re.fullmatch(r"([0-9a-fA-FxX']+?)([uUlL]*)", text).groups()
    value = int(digits.replace("'", ""), 0)
    if "x" in digits.lower() and value:
        return hex(value & (value - 1)) + suffix
    return f"{value + 1}{suffix}"


def code_only(source: str) -> str:
    """C++ with comments, strings and preprocessor lines blanked out, every place as before."""
    pattern = re.compile(
        r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'|^[ \t]*#[^\n]*',
        re.DOTALL | re.MULTILINE,
    )
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), source)


def closing(code: str, at: int) -> int:
    """Where the bracket that opens at `at` closes."""
    depth = 0
    for i in range(at, len(code)):
        depth += (code[i] in "([{") - (code[i] in ")]}")
        if depth == 0:
            return i
    raise ValueError("unbalanced brackets")


def arguments(code: str, at: int) -> list[tuple[int, int]]:
    """The places of the arguments of the call whose bracket opens at `at`."""
    end, places, start = closing(code, at), [], at + 1
    depth = 0
    for i in range(at, end + 1):
        depth += (code[i] in "([{") - (code[i] in ")]}")
        if (code[i] == "," and depth == 1) or i == end:
            places.append((start + (code[start] == " "), i))
            start = i + 1
    return places


def cpp_changes(source: str) -> Iterator[Change]:
    code = code_only(source)
    for m in re.finditer(r"(?<= )(<=|>=|==|!=|<<|>>|&&|\|\||[-+*/%<>&|])(?= )", code):
        for kind, table in (("compare", COMPARE), ("arithmetic", ARITHMETIC), ("logic", LOGIC)):
            if m[0] in table:
                yield Change(kind, *m.span(), table[m[0]])
    for m in re.finditer(r"(?<= )([-+*/])=(?= )|\)\*|(?<=\w)--|\+\+(?=\w)", code):
        text = {"+=": "-=", "-=": "+=", "*=": "+=", "/=": "*=", ")*": ") + "}.get(m[0])
        if text:
            yield Change("arithmetic", *m.span(), text)
    for m in re.finditer(r"(?<![\w.'])(0[xX][0-9a-fA-F]+|\d[\d']*)[uUlL]*(?![\w.'])", code):
        yield Change("constant", *m.span(), integer(m[0]))
    for m in re.finditer(
        r"-?(?<![\w.])(0x[01]\.?[0-9a-f]*p[-+]\d+|\d+\.\d+(?:e-?\d+)?)(?=f?\b)", code
    ):
        text = m[0][1:] if m[0][0] == "-" else f"-{m[0]}"
        yield Change("sign of constant", *m.span(), text)
        # The lowest digit of the mantissa: what an accuracy test should see, and nothing else can.
        if digit := re.search(r"(?<=\.)([0-9a-f]*)([0-9a-f])(?=p)", m[0]):
            at = m.start() + digit.start(2)
            yield Change("digit of constant", at, at + 1, format(int(digit[2], 16) ^ 8, "x"))
    for m in re.finditer(r"\b[a-z_]\w*\b", code):
        if m[0] in CPP_WORDS:
            yield Change("word", *m.span(), CPP_WORDS[m[0]])
    for m in re.finditer(r"(?<=[( ])!(?=[\w(])", code):
        yield Change("negation dropped", *m.span(), "")
    for m in re.finditer(r"\b(?:if|while) \(", code):
        end = closing(code, m.end() - 1)
        yield Change("condition", m.end(), end, f"!({source[m.end() : end]})")
    for m in ORDERED_CALLS.finditer(code):
        places = arguments(code, m.end() - 1)
        if len(places) >= 2:
            (a, b), (c, d) = places[-2:] if m[1] == "select" else places[:2]
            text = source[c:d] + source[b:c] + source[a:b]
            yield Change("operands swapped", a, d, text)
    yield from cpp_statements(code)


def cpp_statements(code: str) -> Iterator[Change]:
    """Assignments and calls that stand alone, or as the whole of an `if` or a loop."""
    for m in re.finditer(r"^( +)((?:if|for) \(.*\) )?([^\s].*);[ \t]*$", code, re.MULTILINE):
        text = m[3]
        before = code[: m.start()].rstrip()
        if before[-1:] not in ";{}:)" or text.count("(") != text.count(")"):
            continue
        assigned = re.match(r"[\w.\[\]()*>:<+ -]*[^=!<>+*/|&^-]([-+*/|&]|<<|>>)?= ", text)
        declared = re.match(
            r"(const|constexpr|static|using|auto|return|template)\b|[\w:<>*& ]+ \w+ = ", text
        )
        called = re.fullmatch(r"[\w.<>:\[\] ,*]*[\w>]\(.*\)", text) and not re.match(
            r"\w+ \w+\(", text
        )
        if not declared and (assigned or called or text in ("continue", "break")):
            yield Change("statement dropped", m.start(3), m.end(3), "")


def offsets(source: str) -> list[int]:
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts


def python_changes(source: str) -> Iterator[Change]:
    starts = offsets(source)
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    for i, t in enumerate(tokens):
        begin, end = starts[t.start[0] - 1] + t.start[1], starts[t.end[0] - 1] + t.end[1]
        if t.type == tokenize.NUMBER and t.string.isdigit():
            yield Change("constant", begin, end, integer(t.string))
        elif t.type == tokenize.OP and t.string in COMPARE:
            yield Change("compare", begin, end, COMPARE[t.string])
        elif t.type == tokenize.OP and t.string in ("+", "-", "*", "/", "//", "%"):
            text = {"*": "+", "//": "*"}.get(t.string) or ARITHMETIC[t.string]
            unpacking = (t.string == "*" and tokens[i - 1].string in "(,[{") or text == "**"
            if not unpacking and tokens[i - 1].string not in ("(", ",", "import"):
                yield Change("arithmetic", begin, end, text)
        elif t.type == tokenize.NAME and t.string in PYTHON_WORDS:
            yield Change("word", begin, end, PYTHON_WORDS[t.string])
        elif t.type == tokenize.NAME and t.string == "not" and tokens[i + 1].string != "in":
            yield Change("negation dropped", begin, end + 1, "")
        elif t.type == tokenize.NAME and t.string in ("is", "in") and tokens[i - 1].string != "not":
            negated = tokens[i + 1].string == "not"
            if t.string == "is" or tokens[i - 1].line.lstrip().startswith(("if", "return", "and")):
                text, length = ("is", 6) if negated else (f"{t.string} not", 2)
                text = "not in" if t.string == "in" else text
                yield Change("compare", begin, begin + length, text)
    yield from python_statements(ast.parse(source), source, starts)


def python_statements(tree: ast.Module, source: str, starts: list[int]) -> Iterator[Change]:
    def place(node: ast.AST) -> tuple[int, int]:
        # ast counts bytes; the sources are ASCII but for a few signs in texts.
        lines = source.splitlines()
        first, last = lines[node.lineno - 1].encode(), lines[node.end_lineno - 1].encode()
        return (
            starts[node.lineno - 1] + len(first[: node.col_offset].decode()),
            starts[node.end_lineno - 1] + len(last[: node.end_col_offset].decode()),
        )

    for node in ast.walk(tree):
        if isinstance(node, ast.If | ast.IfExp | ast.While):
            if ast.unparse(node.test) != "TYPE_CHECKING":
                begin, end = place(node.test)
                yield Change("condition", begin, end, f"(not ({source[begin:end]}))")
        elif isinstance(node, ast.Return) and node.value is not None:
            if not (isinstance(node.value, ast.Constant) and node.value.value is None):
                yield Change("result dropped", *place(node.value), "None")
        elif isinstance(node, ast.Raise | ast.AugAssign) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        ):
            yield Change("statement dropped", *place(node), "pass")


def mutants_of(file: str, source: str) -> list[Mutant]:
    """All mutants of one file, best rank first; one for a line comes before a second for any."""
    python = file.endswith(".py")
    seen: dict[str, int] = {}
    found = []
    for change in python_changes(source) if python else cpp_changes(source):
        line = source.count("\n", 0, change.begin) + 1
        first = source.rfind("\n", 0, change.begin) + 1
        last = source.find("\n", change.end)
        before = source[first:last]
        after = source[first : change.begin] + change.text + source[change.end : last]
        key = f"{SEED}|{file}|{change.operator}|{before}|{after}"
        seen[key] = seen.get(key, 0) + 1
        name = hashlib.sha256(f"{key}|{seen[key]}".encode()).hexdigest()[:10]
        squeezed = [" ".join(text.split()) for text in (before, after)]
        found.append(Mutant(name, file, line, change.operator, *squeezed, *change[1:]))
    found.sort(key=lambda mutant: mutant.id)
    turns: dict[int, int] = {}
    order = []
    for mutant in found:
        turns[mutant.line] = turns.get(mutant.line, 0) + 1
        order.append((turns[mutant.line], mutant.id, mutant))
    return [mutant for _, _, mutant in sorted(order)]
