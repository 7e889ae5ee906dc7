"""The documentation site: where its links lead, and that nothing is missing from it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docs_site
import pytest
import yaml

ROOT = Path(__file__).parents[2]
REPOSITORY = "https://example.org/metarun"


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("index.md", "[a](docs/data.md#omniglot)", "[a](data.md#omniglot)"),
        ("index.md", "![a](docs/speed.png)", "![a](speed.png)"),
        ("index.md", "[a](CHANGELOG.md)", "[a](changelog.md)"),
        ("data.md", "[a](../README.md#results)", "[a](index.md#results)"),
        ("data.md", "[a](speed.md)", "[a](speed.md)"),
        ("data.md", "[a](#here)", "[a](#here)"),
        ("data.md", "[a](https://hydra.cc)", "[a](https://hydra.cc)"),
        ("data.md", "[a](../metarun/network.py)", f"[a]({REPOSITORY}/blob/main/metarun/network.py)"),
        ("index.md", "[a](LICENSE)", f"[a]({REPOSITORY}/blob/main/LICENSE)"),
    ],
)
def test_a_link_leads_to_the_page_of_the_site_or_to_the_repository(page: str, link: str, expected: str) -> None:
    assert docs_site.rewrite(f"See {link}.", page, REPOSITORY) == f"See {expected}."


def test_a_link_to_a_file_is_text_where_the_repository_has_no_address() -> None:
    assert docs_site.rewrite("See [the license](LICENSE).", "index.md", None) == "See the license."


def test_code_blocks_stay_as_they_are() -> None:
    text = "```python\nx = [f](LICENSE)\n```\n[a](docs/data.md)\n```\n[b](LICENSE)\n```\n"
    assert docs_site.rewrite(text, "index.md", None) == text.replace("docs/data.md", "data.md")


def pages(node: Any) -> list[str]:
    if isinstance(node, str):
        return [node]
    return [page for value in (node.values() if isinstance(node, dict) else node) for page in pages(value)]


def test_the_navigation_names_every_page_once() -> None:
    config = SimpleNamespace(nav=yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    written = {file.name for file in (ROOT / "docs").glob("*.md")}
    expected = sorted([*written, *docs_site.TEXTS.values(), *docs_site.reference()])
    assert sorted(pages(docs_site.on_config(config).nav)) == expected


def test_the_reference_has_a_page_for_each_public_module_and_algorithm() -> None:
    reference = docs_site.reference()
    assert reference["reference/types.md"] == "metarun.types"
    assert reference["reference/algorithms/maml.md"] == "metarun.algorithms.maml"
    places = [ROOT / module.replace(".", "/") for module in reference.values()]
    assert all(place.with_suffix(".py").is_file() or (place / "__init__.py").is_file() for place in places)
