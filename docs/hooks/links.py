"""Hook of mkdocs: links to files outside docs/, and to HTML files in it, lead to copies of them in the site.

A link whose text is the name of a document, as it reads well in a repository, shows its title.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FOLDER = "repository"  # of the site
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
FENCES = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {".py": "python", ".sh": "sh", ".mjs": "js", ".hpp": "cpp", ".cpp": "cpp", ".json": "json", ".toml": "toml"}
PICTURES = (".png", ".jpg", ".svg", ".html")  # files that are copied
LONGEST = 200_000  # characters of a file that becomes a page


def on_files(files: Files, *, config: Any) -> Files:
    """Adds a page for each file outside docs/ that a page names, and for those that these name."""
    waiting = [(_origin(file.src_uri), file.content_string) for file in files.documentation_pages()]
    known: set[Path] = set()
    while waiting:
        origin, text = waiting.pop()
        for target in _outside(origin, text):
            if target not in known:
                known.add(target)
                if target.suffix in PICTURES:
                    files.append(File.generated(config, _address(target), abs_src_path=str(target)))
                    continue
                content = _content(target)
                files.append(File.generated(config, _address(target), content=content))
                waiting.append((target, content))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Points links at the pages of this hook, and keeps these out of the search."""
    origin, here = _origin(page.file.src_uri), Path(page.file.src_uri).parent
    if here.parts[:1] == (FOLDER,):
        page.meta["search"] = {"exclude": True}

    def pointed(found: re.Match[str]) -> str:
        target = _resolve(origin, found[2])
        if not target.exists():
            return found[0]
        address = target.relative_to(DOCS).as_posix() if _is_page(target) else _address(target)
        return f"{_shown(found[1], target)}{os.path.relpath(address, here)}{found[3]}"

    return _outside_fences(markdown, lambda text: LINK.sub(pointed, text))


def _shown(text: str, target: Path) -> str:
    """The start of a link, `[text](`; the title of the document where the text is its name."""
    if not re.fullmatch(r"\[[\w./-]+\.md\]\(", text) or not target.is_file():
        return text
    title = re.search(r"^# (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
    return f"[{title[1]}](" if title else text


def _outside(origin: Path, text: str) -> Iterator[Path]:
    """The files outside docs/ that a text names."""
    for _, link, _ in LINK.findall(FENCES.sub("", text)):
        target = _resolve(origin, link)
        if target.exists() and target.is_relative_to(ROOT) and not _is_page(target):
            yield target


def _is_page(target: Path) -> bool:
    """Whether mkdocs itself has the file. It takes no `x.html` beside `x.md`, so those are copied by this hook."""
    return target.is_relative_to(DOCS) and target.suffix != ".html"


def _resolve(origin: Path, link: str) -> Path:
    folder = origin if origin.is_dir() else origin.parent
    return Path(os.path.normpath(folder / link))


def _origin(address: str) -> Path:
    """The file that a page of the site was made of."""
    inside = Path(address)
    if inside.parts[0] != FOLDER:
        return DOCS / inside
    original = ROOT / Path(*inside.parts[1:])
    return original if original.is_file() else original.with_suffix("")


def _address(target: Path) -> str:
    """The page of a file: `plugins/x/README.md` keeps its name, `main.cpp` becomes `main.cpp.md`."""
    inside = target.relative_to(ROOT).as_posix()
    return f"{FOLDER}/{inside}" if target.suffix in (".md", *PICTURES) else f"{FOLDER}/{inside}.md"


def _content(target: Path) -> str:
    """Markdown: a document as it is, code in a fence, a folder as its README or the list of its files."""
    if target.is_dir():
        readme = target / "README.md"
        if readme.is_file():
            return readme.read_text(encoding="utf-8")
        names = sorted(path.name for path in target.iterdir() if path.is_file())
        return "\n".join([f"# {target.name}/\n", *(f"* [{name}]({name})" for name in names)])
    text = target.read_text(encoding="utf-8")[:LONGEST]
    if target.suffix == ".md":
        return text
    return (
        f"# {target.name}\n\n`{target.relative_to(ROOT)}`\n\n````{LANGUAGES.get(target.suffix, 'text')}\n{text}\n````\n"
    )


def _outside_fences(text: str, change: Any) -> str:
    """A text whose parts outside fences are changed."""
    parts, end = [], 0
    for fence in FENCES.finditer(text):
        parts += [change(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(text[end:])])
