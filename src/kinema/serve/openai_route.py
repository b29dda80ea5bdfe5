"""Routes under `/v1`: what a request gets wrong is 400, as OpenAI's clients expect, never 422."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from kinema.core.errors import KinemaError
from kinema.serve.errors import ApiError, told


class OpenAIRoute(APIRoute):
    """A route whose errors are in that API's manner."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with errors turned."""
        answer = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await answer(request)
            except KinemaError as error:
                raise as_400(told(error)) from None
            except ApiError as error:
                raise as_400(error) from None

        return handler


def as_400(error: ApiError) -> ApiError:
    """422 and 415 as 400; others as they are."""
    if error.status not in (415, 422):
        return error
    return ApiError(400, error.message, code=error.code, param=error.param, headers=error.headers)
