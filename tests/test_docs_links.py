"""Links of README.md, docs/ and the other pages: files and headings exist, URLs are well formed. Nothing is fetched."""

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parent
while not (ROOT / "pyproject.toml").is_file():
    ROOT = ROOT.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "weights").glob("*/README.md")])

FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")
INLINE = re.compile(r"!?\[(?:[^\[\]]|\[[^\[\]]*\]\([^)]*\))*\]\(\s*<?([^\s)>]+)>?(?:\s+[\"'][^)]*)?\)")
IMAGE = re.compile(r"!\[[^\[\]]*\]\(\s*<?([^\s)>]+)>?(?:\s+[\"'][^)]*)?\)")  # also those inside a link's text
DEFINITION = re.compile(r"^\[[^\]]+\]:\s*<?(\S+?)>?\s*$", re.MULTILINE)
REFERENCE = re.compile(r"\[[^\[\]]+\]\[([^\[\]]+)\]")
HTML = re.compile(r"<[^>]*\b(?:href|src)=[\"']([^\"']+)[\"']")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)


def links(text: str) -> Iterator[str]:
    """Every target that a page names, those in code left out."""
    prose = CODE.sub("", FENCE.sub("", text))
    for pattern in (INLINE, IMAGE, DEFINITION, HTML):
        yield from (match[1] for match in pattern.finditer(prose))


def undefined(text: str) -> set[str]:
    """Labels of reference links, [text][label], that the page does not define."""
    prose = CODE.sub("", FENCE.sub("", text))
    labels = {match.lower() for match in re.findall(r"^\[([^\]]+)\]:", prose, re.MULTILINE)}
    return {match[1] for match in REFERENCE.finditer(prose) if match[1].lower() not in labels}


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings as GitHub makes them: lower case, no punctuation, hyphens for spaces; a repeated
    heading has a number."""
    found: set[str] = set(re.findall(r"<a\s+(?:id|name)=[\"']([^\"']+)[\"']", text))
    for heading in HEADING.findall(FENCE.sub("", text)):
        plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        kept = (c for c in plain if c in " -_" or unicodedata.category(c)[0] in "LN")
        slug = base = "".join(kept).replace(" ", "-")
        number = 0
        while slug in found:
            number += 1
            slug = f"{base}-{number}"
        found.add(slug)
    return found


def problem(page: Path, target: str) -> str | None:
    """What is wrong with a link, or None."""
    parts = urlsplit(target)
    if parts.scheme in ("http", "https"):
        return None if re.fullmatch(r"[\w.-]+(:\d+)?", parts.netloc) else "is no URL"
    if parts.scheme == "mailto":
        return None if "@" in parts.path else "is no address"
    if parts.scheme or parts.netloc:
        return f"has the unknown scheme {parts.scheme or '//'}"
    path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not path.is_relative_to(ROOT):
        return "leaves the repository"
    if not path.exists():
        return f"names {path.relative_to(ROOT)}, which does not exist"
    if parts.fragment and path.suffix == ".md" and unquote(parts.fragment) not in anchors(path.read_text("utf-8")):
        return f"names the heading #{parts.fragment}, which {path.relative_to(ROOT)} does not have"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    text = page.read_text("utf-8")
    wrong = [f"{target} {said}" for target in links(text) if (said := problem(page, target))]
    wrong += [f"[{label}] is not defined" for label in sorted(undefined(text))]
    assert not wrong, f"{page.relative_to(ROOT)}: " + "; ".join(wrong)


def test_broken_links_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path.resolve())
    (tmp_path / "other.md").write_text("# What `it` does: (1)\n\n## Twice\n\n## Twice\n\n```\n# no heading\n```\n")
    page = tmp_path.resolve() / "page.md"
    page.write_text("")
    good = ["other.md", "other.md#what-it-does-1", "other.md#twice-1", "https://example.org/a?b#c", "mailto:a@b.c", "."]
    bad = ["none.md", "other.md#none", "other.md#twice-2", "other.md#no-heading", "#here", "https:///x", "../up.md"]
    assert [problem(page, target) for target in good] == [None] * len(good)
    assert all(problem(page, target) for target in bad)


def test_links_are_read_where_they_stand():
    text = (
        'A [b](c.md "title") and [![d](e.png)](f.md), <img src="g.png">, `[no](h.md)`, [i][j] and [k][missing].\n'
        "```\n[no](l.md)\n```\n[j]: m.md\n"
    )
    assert sorted(set(links(text))) == ["c.md", "e.png", "f.md", "g.png", "m.md"]
    assert undefined(text) == {"missing"}
