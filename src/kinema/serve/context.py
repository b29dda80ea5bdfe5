"""What every route needs: the server's state, ids of the right form, numbers of a query, JSON answers."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from starlette.responses import Response

from kinema.serve.errors import ApiError, as_json, not_found
from kinema.serve.jobs import ID
from kinema.serve.studio import Studio

OWNER = "local"


def studio_of(request: Request) -> Studio:
    """The state of the server that answers."""
    studio: Studio = request.app.state.studio
    return studio


def owner_of(request: Request) -> str:
    """Whose request this is: there is one token, so one owner."""
    return OWNER


def job_id(written: Any, *, param: str | None = None) -> str:
    """An id of the right form; 404 for anything else in a path, 422 in `param`."""
    if isinstance(written, str) and ID.fullmatch(written):
        return written
    if param is not None:
        raise ApiError(422, f"{str(written)[:60]!r} is no job's id.", code="invalid_value", param=param)
    raise not_found("job", str(written))


def query_number(request: Request, name: str, low: int, high: int, default: int) -> int:
    """A whole number in the query."""
    written = request.query_params.get(name)
    if written is None or written == "":
        return default
    if not (written.isascii() and written.isdecimal() and len(written) < 10 and low <= int(written) <= high):
        message = f"{name}={written[:20]!r} is not a whole number from {low} to {high}."
        raise ApiError(422, message, code="invalid_value", param=name)
    return int(written)


def json_answer(value: Any, status: int = 200) -> Response:
    """JSON, compact."""
    return Response(as_json(value), status, media_type="application/json")
