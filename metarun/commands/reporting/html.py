"""A page as one HTML file. jinja2 escapes every text; the page's policy lets a browser fetch nothing and run no script but the page's."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

from metarun.commands.reporting.page import Page
from metarun.errors import printable

if TYPE_CHECKING:
    from jinja2 import Environment

MARK = '<meta name="generator" content="metarun report">'
"""The line by which a file is known as a report."""
_CODE = re.compile(r"`([^`]*)`")


def rendered(page: Page) -> str:
    """Return the HTML of a page."""
    script, css = template("page.js"), template("page.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return environment().get_template("page.html").render(page=page, script=script, css=css, mark=MARK, policy=policy)


def template(name: str) -> str:
    """Return a file of the folder `templates`."""
    return (resources.files("metarun.commands.reporting") / "templates" / name).read_text(encoding="utf-8")


def environment() -> Environment:
    """Return jinja2 with autoescape on, for the templates of this package."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(template),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=visible,
    )
    made.filters["parts"] = parts
    return made


def visible(value: Any) -> Any:
    r"""Return a text with its control characters as escapes, such as \x1b; line breaks, markup and other values stay."""
    if type(value) is not str:
        return value
    return "\n".join(map(printable, value.split("\n")))


def parts(text: str) -> list[tuple[bool, str]]:
    """Return the parts of a text in which backticks enclose code, each with whether it is code."""
    return [(place % 2 == 1, part) for place, part in enumerate(_CODE.split(text)) if part]
