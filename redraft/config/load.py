"""Reading project.yaml and rates.yaml: every mistake is named with its line and with what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from redraft.config.schema import Config, RateCard
from redraft.config.sources import SOURCE_KINDS
from redraft.errors import ConfigError

# Keys whose values are secrets: never shown.
SECRETS = {"keys", "user", "password", "bearer", "access_key", "secret_key"}

Model = TypeVar("Model", bound=BaseModel)


def load_config(path: Path) -> Config:
    """Read and check project.yaml. Raises ConfigError listing every mistake."""
    return _load(path, Config)


def load_rates(path: Path) -> RateCard:
    """Read and check a rate card."""
    return _load(path, RateCard)


def _load(path: Path, model: type[Model]) -> Model:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        do = "Make a project with `redraft init DIR`, or pass --project."
        raise ConfigError(f"{path} is not there.", do) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name} is not UTF-8 text.", "Save it as UTF-8.") from error
    try:
        tree = YAML(typ="rt").load(text)
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"{path.name}:{line}: a key is given twice.", "Keep one of them.") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        what = f"{path.name}:{line}: not valid YAML ({error.problem})."
        raise ConfigError(what, "Check indentation and quotes.") from None  # the cause quotes the line
    except YAMLError as error:
        raise ConfigError(f"{path.name}: not valid YAML (a character that text cannot hold).", "Remove it.") from error
    except ValueError:  # e.g. 2024-02-31; `from None`: the cause may quote the value
        raise ConfigError(
            f"{path.name}: a date or number does not exist.", "Correct it, or quote it as text."
        ) from None
    if not isinstance(tree, CommentedMap):
        raise ConfigError(f"{path.name} holds no settings.", "It must be a YAML mapping; see `redraft init`.")
    try:
        return model.model_validate(_plain(tree))
    except ValidationError as error:
        items = error.errors()
        # A list whose items failed is also reported as too short; only the items' own mistakes help.
        items = [a for a in items if a["type"] != "too_short" or not any(_inside(b["loc"], a["loc"]) for b in items)]
        mistakes = [_explain(path.name, tree, model, item) for item in items]
        # `from None`: the cause quotes every value, and tracebacks reach logs.
        raise ConfigError("\n".join(mistakes), code="config.invalid") from None


def _inside(inner: Sequence[str | int], outer: Sequence[str | int]) -> bool:
    return len(inner) > len(outer) and tuple(inner[: len(outer)]) == tuple(outer)


def _plain(node: Any) -> Any:
    """ruamel's round-trip nodes as plain Python, so that pydantic's messages show plain values."""
    if isinstance(node, CommentedMap):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        return [_plain(value) for value in node]
    if type(node).__name__ in ("ScalarFloat", "ScalarInt", "ScalarBoolean"):
        return {"ScalarFloat": float, "ScalarInt": int, "ScalarBoolean": bool}[type(node).__name__](node)
    return node


def _explain(file: str, tree: CommentedMap, model: type[BaseModel], item: Any) -> str:
    loc = [part for part in item["loc"] if not (isinstance(part, str) and part.startswith("function-"))]
    where = [part for n, part in enumerate(loc) if not _is_kind(loc, n)]
    dotted = ".".join(str(part) for part in where) or "(top level)"
    line = _line(tree, where)
    if SECRETS.intersection(map(str, where[:-1])) and item["type"] == "extra_forbidden":
        where = where[:-1]  # `{secret}` is a mapping whose key is the secret
        dotted = ".".join(str(part) for part in where)
    elif item["type"] == "extra_forbidden":
        allowed = _allowed(model, loc[:-1])
        close = difflib.get_close_matches(str(where[-1]), allowed, n=1)
        hint = f" Did you mean `{close[0]}`?" if close else ""
        return f"{file}:{line}: unknown key `{dotted}`.{hint} Allowed here: {', '.join(allowed) or 'nothing'}."
    if item["type"] == "missing":
        return f"{file}:{line}: `{dotted}` is missing."
    message = item["msg"].removeprefix("Value error, ")
    shown = item["input"]
    value = f" (got {shown!r})" if isinstance(shown, (str, int, float, bool)) else ""
    if item["type"] == "union_tag_invalid":
        return f"{file}:{line}: `{dotted}`: unknown kind. Allowed: {', '.join(SOURCE_KINDS)}."
    if "security" in where or SECRETS.intersection(map(str, where)) or "@" in value:
        value = ""  # what stands there may be a secret, as may what stands before the @ of a URL
    if SECRETS.intersection(map(str, where)):
        message = "a literal secret is refused, give {file: PATH} or {env: NAME}"
    return f"{file}:{line}: `{dotted}`: {message}{value}."


def _is_kind(loc: Sequence[str | int], n: int) -> bool:
    """Whether pydantic put the kind of a source at this place: it stands behind an index and is no key of the file."""
    return n > 0 and isinstance(loc[n - 1], int) and loc[n] in SOURCE_KINDS and "sources" in loc[:n]


def _line(tree: Any, where: Sequence[str | int]) -> int:
    """Line (1-based) of the deepest node of `where` that exists."""
    node, line = tree, 1
    for part in where:
        try:
            mark = node.lc.key(part) if isinstance(node, CommentedMap) else node.lc.item(part)
            line = mark[0] + 1
            node = node[part]
        except (KeyError, IndexError, AttributeError, TypeError):
            break
    return line


def _allowed(model: type[BaseModel], where: Sequence[str | int]) -> list[str]:
    """Names allowed at a place, found by walking the models along `where`."""
    for n, part in enumerate(where):
        if isinstance(part, int):
            continue
        if _is_kind(where, n):
            model = SOURCE_KINDS[str(part)]
            continue
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        inner = _model_of(field.annotation) if field else None
        if inner is None:
            return []
        model = inner
    return sorted(field.alias or name for name, field in model.model_fields.items())


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _model_of(argument)
        if found is not None:
            return found
    return None
