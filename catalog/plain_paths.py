"""Which names a recording may have: those that every table and every disk takes as they are."""

import re

BAD_PATH = re.compile(r"^'*[=+\-@]|^/|^[A-Za-z]:|[\\\x00-\x1f\x7f]|(?:^|/)\.{0,2}(?:/|$)")
RENAME = (
    r"its name holds a line break or another control character, or \, or begins with = + - or @: "
    "rename it"
)


def is_plain_path(name: str) -> bool:
    """Say whether a name is a plain path below the audio folder.

    It is none if it is absolute, has `..` or control characters, or starts as a formula.
    """
    return BAD_PATH.search(name) is None
