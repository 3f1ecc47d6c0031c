"""The prose is plain English: words that nobody in the field would search for appear in no source, help text or page.

The glossary in sketchscale/README.md has the words to use instead.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
INSTEAD = {
    "anew": "again, from scratch",
    "nobody": "no one, no user; or say what is ignored",
    "whoever": "the caller, the process that",
    "in vain": "without effect, unsuccessfully",
    "told|tell|tells": "given, reported, passed; show",
    "said": "given, reported, stated",
    "taught": "trained",
    "dealt|deals|deal": "assigned, split among",
    "hear|hears|heard": "receives, gets",
    "ears": "callbacks",
    "toll|tolls": "vote thresholds",
    "beat|beats": "heartbeat; exceeds",
    "piece|pieces": "component, part, fragment",
    "hush|knock|bury|keeper": "silence, probe, drop, dispatcher",
    "upon|amid|lest|ought|thereof|twain": "on, among, so that ... not, should",
    "scarcely|seldom": "rarely",
    "makers?|judges": "generator; critic, reviewer",
}
STORED = re.compile(
    r'"(pieces|makers|judges)"|\bpieces: |\.beat'
)  # names in files of earlier runs: stages, training states
PATTERN = re.compile(r"(?<![-\w])(" + "|".join(INSTEAD) + r")(?![-\w])", re.IGNORECASE)
FILES = sorted(
    path
    for folder in ("sketchscale", "benchmarks", "deploy")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".md", ".js", ".css"}
    and "results" not in path.parts
    and path != ROOT / "benchmarks" / "README.md"  # quotes printed results
)


def odd_words(text: str) -> list[tuple[int, str]]:
    """(line, word) of every odd word; names in code count when the word stands alone between underscores."""
    spread = STORED.sub('""', text).replace("_", " ")
    return [(text.count("\n", 0, found.start()) + 1, found.group().lower()) for found in PATTERN.finditer(spread)]


@pytest.mark.parametrize("path", [*FILES, ROOT / "README.md"], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_odd_word(path: Path) -> None:
    found = odd_words(path.read_text("utf-8"))
    advice = {word: next(usual for odd, usual in INSTEAD.items() if re.fullmatch(odd, word)) for _, word in found}
    assert not found, f"{path.relative_to(ROOT)}: {found}; write instead: {advice}"


def test_an_odd_word_is_found_in_prose_and_in_names() -> None:
    assert odd_words("Whoever\nis told, in vain") == [(1, "whoever"), (2, "told"), (2, "in vain")]
    assert odd_words("deal_marks(ears)") == [(1, "deal"), (1, "ears")]
    assert not odd_words("heartbeat, ideal, appears, piecewise, retold")
