"""What a cell says that holds several labels, in any of the ways in which people write lists."""

import ast
import json
import re
import warnings
from collections.abc import Container

MAX_CELL = 10_000  # characters of a list that are parsed; 264 eBird codes take 3,000
MISSING_WORDS = frozenset(["nan", "none", "null", "na", "n/a", "<na>", "-"])  # as pandas has them
MAX_WORDS = 6  # no label has more
TOKEN = re.compile(
    r"""\s*(?:np\.\w+\()?(?:
        (?P<string>[bru]?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"))
        |(?P<number>\d+(?:\.0*)?(?=[\s,)]|$))
    )\)?\s*(?P<comma>,?)""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
WRAPPED = re.compile(r"(?:array|index|set|frozenset|list|tuple)\((.*)\)", re.DOTALL | re.IGNORECASE)
DTYPE = re.compile(r",\s*dtype=[^\]]*$")
LABEL_TEXT = re.compile(r"[^\W_][^\[\]{}<>=\"\\*?!:@#$^`~]*")
WIDE_MARKS = str.maketrans("，、；｜", ",,;|")  # as Chinese and Japanese keyboards write them
BRACKETS = {"[": "]", "(": ")", "{": "}"}


class MalformedError(ValueError):
    """A cell that is no list of labels."""


class AmbiguousError(ValueError):
    """A cell that can be read in more than one way; the message says which."""


def parse_labels(cell: str, known: Container[str] = ()) -> tuple[str, ...]:
    """Read the labels of a cell, in whichever way they were written.

    Python's lists (`['a', 'b']`), numpy's (`['a' 'b']`) and JSON's, with or without quotes; labels
    separated by `;`, `|`, `,` or new lines; and codes separated by spaces. Nothing in the cell is
    ever run: quoted text goes through `ast.literal_eval`.

    Args:
        cell: its text.
        known: labels that are there; they decide whether `Great tit` is one label or two.

    Returns:
        The labels, none for an empty cell, `[]`, `['']` and words such as `nan`.

    Raises:
        MalformedError: the cell is no list of names, or has over MAX_CELL characters.
        AmbiguousError: it may be read in two ways.
    """
    text = cell.strip()
    if _is_missing(text, known):
        return ()
    if len(text) > MAX_CELL:
        raise MalformedError(f"over {MAX_CELL} characters")

    if wrapped := WRAPPED.fullmatch(text):
        text = DTYPE.sub("", wrapped[1].strip())
    if text[:1] in BRACKETS:
        if len(text) < 2 or text[-1] != BRACKETS[text[0]]:
            raise MalformedError("the list does not end")
        text = text[1:-1].strip()
        return _parse_list(text) if _has_quotes(text) else _parse_bare(text, known)
    if text[:1] in "'\"" and text:
        return _parse_list(text)
    return _parse_bare(text, known)


def _is_missing(text: str, known: Container[str]) -> bool:
    return not text or (text.casefold() in MISSING_WORDS and text not in known)


def _has_quotes(text: str) -> bool:
    return text[:1] in "'\"" or bool(re.search(r"[,\s]['\"(]|np\.|\b[bru]['\"]", text))


def _parse_list(text: str) -> tuple[str, ...]:
    """Read quoted labels and numbers, all separated by commas, or (numpy) none."""
    names, commas, position = [], [], 0
    while position < len(text):
        token = TOKEN.match(text, position)
        if token is None or token.end() == position:
            raise MalformedError("not a list of names")
        names.append(_unquote(token["string"]) if token["string"] else token["number"].rstrip("."))
        commas.append(bool(token["comma"]))
        position = token.end()

    if len(set(commas[:-1])) > 1:
        raise AmbiguousError("a comma is missing between two labels")
    return tuple(name for name in names if name != "")


def _unquote(literal: str) -> str:
    if literal.startswith('"'):
        try:
            return str(json.loads(literal, strict=False))
        except ValueError:
            pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parser's, on escapes such as '\d'
            value = ast.literal_eval(literal)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise MalformedError("not a list of names") from None
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _parse_bare(text: str, known: Container[str]) -> tuple[str, ...]:
    """Read labels without quotes."""
    if not text:
        return ()
    if text not in known:
        text = text.translate(WIDE_MARKS)
    strong = [mark for mark in ";|\n" if mark in text]
    if len(strong) > 1:
        raise AmbiguousError("it has two kinds of separators")

    if strong:
        items = text.split(strong[0])
    elif "," in text and text not in known:
        items = text.split(",")
    else:
        return _parse_words(text, known)
    names = [item.strip().strip("'\"") for item in items]
    return tuple(_check_item(name, known) for name in names if not _is_missing(name, known))


def _check_item(name: str, known: Container[str]) -> str:
    if name in known:
        return name
    words = name.split()
    if "," in name:
        raise AmbiguousError("it has two kinds of separators")
    if len(words) > 1 and all(word in known for word in words):
        raise AmbiguousError(f"{name!r} may be one label or {len(words)}")
    return _check_plain(name)


def _parse_words(text: str, known: Container[str]) -> tuple[str, ...]:
    """Read one label, or labels separated by spaces if they are known ones."""
    words = text.split()
    if text in known:
        return (text,)
    if _is_missing(text, known):
        return ()
    _check_plain(text)
    if len(words) == 1:
        return (text,)
    if all(word.isdecimal() for word in words):  # taxon numbers
        return tuple(words)

    ways = _cut_into_known(words, known)
    if len(ways) != 1:
        raise AmbiguousError(f"it may be one label or {len(words)}; separate labels by ;")
    return ways[0]


def _cut_into_known(words: list[str], known: Container[str]) -> list[tuple[str, ...]]:
    """Return the ways, two at most, to make known labels of words in a row."""
    ways: list[list[tuple[str, ...]]] = [[()]]
    for end in range(1, len(words) + 1):
        found = []
        for start in range(max(0, end - MAX_WORDS), end):
            label = " ".join(words[start:end])
            if label in known:
                found += [(*way, label) for way in ways[start]]
        ways.append(found[:2])
    return ways[-1]


def _check_plain(name: str) -> str:
    is_number = re.fullmatch(r"-?\d*\.\d*[1-9]\d*", name)
    if not LABEL_TEXT.fullmatch(name) or is_number or name in ("True", "False"):
        raise MalformedError("not a list of names")
    if name.count("(") != name.count(")"):
        raise MalformedError("not a list of names")
    return name
