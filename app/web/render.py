"""Pages from templates. Everything is escaped; a template gets who looks at it and which pages they may open."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader
from starlette.requests import Request
from starlette.responses import HTMLResponse

if TYPE_CHECKING:
    from app.web.deps import Viewer

FOLDER = Path(__file__).parent
# Page, its name, and the roles that open it.
PAGES = (
    ("/", "Work", ("reader",)),
    ("/reviews", "Reviews", ("reviewer",)),
    ("/me", "My work", ("reader",)),
    ("/ops", "Operations", ("ops",)),
)


@cache
def environment() -> Environment:
    """The templates of app/web/templates."""
    return Environment(loader=FileSystemLoader(FOLDER / "templates"), autoescape=True)


def render(
    request: Request,
    name: str,
    context: Mapping[str, Any] | None = None,
    *,
    status: int = 200,
    viewer: Viewer | None = None,
) -> HTMLResponse:
    """A template as an answer. `viewer` is taken from the request where a dependency has found it already."""
    who: Viewer | None = viewer or getattr(request.state, "viewer", None)
    project = request.app.state.project
    everything = {
        "viewer": who, "project_name": project.config.name, "links": _links(who, request.scope["path"]),
        **(context or {}),
    }  # fmt: skip
    return HTMLResponse(environment().get_template(name).render(everything), status)


def _links(viewer: Viewer | None, here: str) -> list[dict[str, Any]]:
    if viewer is None:
        return []
    return [
        {"href": href, "name": name, "here": href == here}
        for href, name, roles in PAGES if any(role in viewer.roles for role in roles)
    ]  # fmt: skip
