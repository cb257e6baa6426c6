"""Our own words in an object whose character set is the image's: ASCII, which every one of them holds."""

import unicodedata

__all__ = ["ascii_text"]

PLAIN = {"–": "-", "—": "-", "…": "...", "≥": ">=", "≤": "<=", "×": "x", "’": "'", "“": '"', "”": '"', "\\": "/"}


def ascii_text(text: str, longest: int = 1024) -> str:
    """`text` in printable ASCII without a backslash (it separates values), at most `longest` characters."""
    plain = "".join(PLAIN.get(letter, letter) for letter in text)
    folded = unicodedata.normalize("NFKD", plain)
    letters = ("" if unicodedata.combining(letter) else letter for letter in folded)
    shown = "".join(letter if " " <= letter <= "~" and letter != "\\" else "?" for letter in letters)
    return " ".join(shown.split())[:longest]
