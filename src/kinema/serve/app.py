"""The HTTP application: `create_app(settings)` puts routes, errors and the guard together.

/            the page                    /api/...   jobs, media, events (native)
/healthz /readyz /metrics                /v1/...    videos, images, models as OpenAI's clients speak
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response

from kinema.core.errors import KinemaError
from kinema.core.version import VERSION
from kinema.serve import (
    native_jobs,
    native_look,
    native_media,
    native_workers,
    openai_images,
    openai_models,
    openai_videos,
)
from kinema.serve.access import Access
from kinema.serve.errors import ApiError, error_body, told
from kinema.serve.guard import Guard
from kinema.serve.hot import Hot
from kinema.serve.intake import Intake
from kinema.serve.page import page_files, page_routes
from kinema.serve.settings import ServeSettings
from kinema.serve.studio import Studio

ABOUT = "Kinema Studio: a durable queue of clips. Errors are {error: {message, type, code, param}}."
ROUTERS = (
    native_jobs.router,
    native_media.router,
    native_look.router,
    native_workers.router,
    openai_videos.router,
    openai_images.router,
    openai_models.router,
)


def create_app(settings: ServeSettings) -> FastAPI:
    """A server; what it holds is begun with its lifespan."""
    studio = Studio(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await studio.start()
        try:
            yield
        finally:
            await studio.stop()

    app = FastAPI(
        title="Kinema Studio",
        version=VERSION,
        description=ABOUT,
        lifespan=lifespan,
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.studio = studio
    for router in ROUTERS:
        app.include_router(router)
    _answer_head(app)
    files = page_files()
    app.router.routes.extend(page_routes(files))
    for kind, handler in ((HTTPException, _http), (RequestValidationError, _form), (KinemaError, _kinema)):
        app.add_exception_handler(kind, handler)
    public = frozenset({"/healthz", "/", *files})
    app.add_middleware(Hot, studio=studio)
    access, intake = Access(settings, public), Intake(settings.limits)
    app.add_middleware(Guard, access=access, metrics=studio.metrics, intake=intake)
    return app


def _answer_head(app: FastAPI) -> None:
    """HEAD wherever GET is, event streams left out, without a second entry in the document."""
    for route in [route for router in ROUTERS for route in router.routes]:
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()) and route.path != "/api/events":
            app.add_api_route(route.path, route.endpoint, methods=["HEAD"], include_in_schema=False)


async def _http(request: Request, error: Exception) -> Response:
    """No such path, or not with this method."""
    assert isinstance(error, HTTPException)
    messages = {404: "there is nothing at this path.", 405: "this path does not know the method."}
    codes = {404: "not_found", 405: "method_not_allowed"}
    status = error.status_code
    message = messages.get(status, str(error.detail))
    answer = _answer(ApiError(status, message, code=codes.get(status, "invalid_request")))
    answer.headers.update(error.headers or {})
    return answer


async def _form(request: Request, error: Exception) -> Response:
    """What FastAPI itself refused: a parameter of a path or query."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    param = ".".join(str(part) for part in first["loc"][1:])
    return _answer(ApiError(422, f"{param}: {first['msg']}.", code="invalid_value", param=param or None))


async def _kinema(request: Request, error: Exception) -> Response:
    """What the queue or a shot refused."""
    assert isinstance(error, KinemaError)
    return _answer(told(error))


def _answer(error: ApiError) -> Response:
    body = error_body(error.status, error.message, code=error.code, param=error.param)
    return Response(body, error.status, error.headers, media_type="application/json")
