"""Prefect's and MLflow's servers as applications that know whom to let in.

uvicorn makes them from here: Prefect's asks for the login by itself (environment.py), MLflow's has
none, answers pages of every port of this machine, and its assistant may run programs.
"""

import base64
import secrets
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse, Response

from flows import environment
from flows.servers import local

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

NAMES = (local.HOST, "localhost")
"""What this machine is called by who may ask: a page that takes over another name may not."""


def prefect(ephemeral: bool = False) -> "ASGIApp":
    """Prefect's server; `ephemeral` leaves its pages out, and services that a run does not need."""
    from prefect.server.api.server import create_app

    return by_name(create_app(ephemeral=ephemeral, final=True))


def mlflow() -> "ASGIApp":
    """MLflow's server behind the login of this home."""
    from tasks.tracking import served

    return by_name(Login(served.application(), environment.login(environment.home())))


def by_name(app: "ASGIApp") -> "ASGIApp":
    """An application that is reached by the names of this machine only."""
    return TrustedHostMiddleware(app, NAMES)


class Login:
    """An application that answers who has the login, and of the pages only its own."""

    def __init__(self, app: "ASGIApp", login: str):
        self.app = app
        self.expected = f"Basic {base64.b64encode(login.encode()).decode()}"

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass a request on, or refuse it."""
        is_asked = scope["type"] == "lifespan" or scope["path"] == local.MLFLOW_HEALTH
        await (self.app if is_asked else self._refusal(Headers(scope=scope)) or self.app)(
            scope, receive, send
        )

    def _refusal(self, headers: Headers) -> Response | None:
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{headers.get('host')}":
            return PlainTextResponse("a page of another address", 403)
        if secrets.compare_digest(
            headers.get("authorization", "").encode(), self.expected.encode()
        ):
            return None
        wanted = {"WWW-Authenticate": 'Basic realm="lightreasoner", charset="UTF-8"'}
        return PlainTextResponse("the login is missing or wrong", 401, wanted)
