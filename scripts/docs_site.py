"""Hooks of mkdocs.yml: pages and links of the documentation site that docs/*.md alone do not give.

The README becomes the first page, and CONTRIBUTING, CHANGELOG and SECURITY become pages too. Each public module gets a reference page, and
mkdocstrings fills the page from the docstrings. The Markdown files link to files of the repository in the way that works on GitHub. This
module rewrites the links: to the page of the site if one exists, else to the repository (`repo_url` of mkdocs.yml), else to plain text.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

TEXTS = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "SECURITY.md": "security.md"}
"""File at the top of the repository -> its page on the site."""

PUBLIC = ("types", "objectives", "draws", "network", "functional", "episodes", "predictive", "testing")
"""Modules at the root of metarun that an author of an algorithm, a task or a backbone imports."""

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^()\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def on_config(config: Any) -> Any:
    """Add the reference pages at the end of the navigation."""
    pages = reference()
    modules = [{page.removeprefix("reference/").removesuffix(".md"): page} for page in pages if "/algorithms/" not in page]
    algorithms = [{Path(page).stem: page} for page in pages if "/algorithms/" in page]
    config.nav.append({"Reference": [*modules, {"Algorithms": algorithms}]})
    return config


def on_files(files: Any, *, config: Any) -> Any:
    """Add the pages whose files are not in docs/."""
    from mkdocs.structure.files import File

    for source, page in TEXTS.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for page, module in reference().items():
        files.append(File.generated(config, page, content=f"# {module}\n\n::: {module}\n"))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Rewrite the links of a page."""
    return rewrite(markdown, page.file.src_uri, config.repo_url)


def reference() -> dict[str, str]:
    """Return page of the site -> the public module that it describes."""
    files = [ROOT / "metarun" / f"{name}.py" for name in PUBLIC]
    files += [file for file in sorted((ROOT / "metarun" / "algorithms").glob("*.py")) if file.stem != "__init__"]
    parts = [file.relative_to(ROOT).with_suffix("").parts for file in files]
    return {f"reference/{'/'.join(names[1:])}.md": ".".join(names) for names in parts}


def rewrite(markdown: str, page: str, repository: str | None) -> str:
    """Return a page's Markdown with links that work on the site; code blocks stay as they are.

    page: the page's path on the site, such as `index.md`. repository: the address of the repository, or None.
    """
    folder = "" if page in TEXTS.values() else posixpath.dirname(f"docs/{page}")

    def replace(match: re.Match[str]) -> str:
        mark, label, target = match.groups()
        path, hash_, anchor = target.partition("#")
        if not path or ":" in path:
            return match[0]
        place = posixpath.normpath(posixpath.join(folder, path))
        if place in TEXTS or place.startswith("docs/"):
            site = TEXTS.get(place, place.removeprefix("docs/"))
            return f"{mark}[{label}]({posixpath.relpath(site, posixpath.dirname(page) or '.')}{hash_}{anchor})"
        return f"{mark}[{label}]({repository.rstrip('/')}/blob/main/{place}{hash_}{anchor})" if repository else label

    return _outside_code(markdown, replace)


def _outside_code(markdown: str, replace: Callable[[re.Match[str]], str]) -> str:
    blocks = [*_FENCE.findall(markdown), ""]
    texts = [_LINK.sub(replace, text) for text in _FENCE.split(markdown)]
    return "".join(text + block for text, block in zip(texts, blocks, strict=True))
