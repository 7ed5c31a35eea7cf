"""Pages from templates: one way to make them, with the links that the viewer's roles allow."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from app.web.words import FILTERS

if TYPE_CHECKING:
    from app.web.deps import Viewer

HERE = Path(__file__).parent
# Who may go where, in the order of the links; the first one is where `/` leads.
LINKS = (
    ("reader", "/", "Work list"),
    ("reviewer", "/reviews", "Second looks"),
    ("reviewer", "/adjudications", "Disagreements"),
    ("reader", "/me", "My page"),
    ("approver", "/decisions", "Decisions"),
    ("ops", "/ops", "Operations"),
)


@cache
def environment() -> Environment:
    """The templates; values are escaped, a name that is missing is an error and not an empty place."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    made.filters.update(FILTERS)
    return made


def page(
    request: Request, template: str, viewer: Viewer | None = None, status: int = 200, **context: Any
) -> HTMLResponse:
    """A page. It is nobody's to keep: what one account saw must not come out of a cache for another."""
    path = request.url.path
    links = [
        {"href": href, "name": name, "here": path == href or (href != "/" and path.startswith(href + "/"))}
        for role, href, name in LINKS
        if viewer is not None and role in viewer.roles
    ]
    project = getattr(request.app.state, "project", None)
    base = {"viewer": viewer, "links": links, "project_name": project.config.name if project else None}
    html = environment().get_template(template).render({**base, "request": request, **context})
    return HTMLResponse(html, status, {"Cache-Control": "no-store"})


def error_page(
    request: Request, error: dict[str, Any], status: int, viewer: Viewer | None = None, heading: str | None = None
) -> HTMLResponse:
    """An error as a page: what happened and what to do; `error` is `RedraftError.to_dict()`."""
    return page(request, "error.html", viewer, status, error=error, heading=heading)
