"""The terminal UI as a web page for whoever has its address; other pages, users and machines are refused."""

import hmac
import re
import secrets
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler
from textual_serve.server import Server

HOST: Final = "127.0.0.1"
# Textual asks for a download by a key that it has just made; a page cannot put the token before it.
DOWNLOAD = re.compile(r"/download/[0-9a-f]{32}", re.ASCII)


class PrivateServer(Server):
    """A server of this machine that shows the terminal UI at an address with a secret token.

    Any page that is open in the same browser can send requests to this machine. Every request must therefore name this
    server as its host, which a domain of others that leads here does not; must come from no other page; and must begin
    with the token.

    Args:
        command: starts the terminal UI, for a shell.
        port: the port of 127.0.0.1.
        title: of the page.
    """

    def __init__(self, command: str, port: int, title: str) -> None:
        super().__init__(command, host=HOST, port=port, title=title, public_url=f"http://{HOST}:{port}")
        self.token = secrets.token_urlsafe(24)
        self.address = f"{self.public_url}/{self.token}/"

    async def _make_app(self) -> web.Application:
        """Return the server's application below the token, behind the checks."""
        checked = web.Application(middlewares=[self._check])
        inner = await super()._make_app()
        # Registered here as well, where Textual's page asks for it.
        checked.add_routes([web.get("/download/{key}", self.handle_download)])
        checked.add_subapp(f"/{self.token}", inner)
        checked.on_response_prepare.append(self._add_headers)
        return checked

    @web.middleware
    async def _check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer 403 to a request that is not from the page at this server's address."""
        origin = request.headers.get("Origin")
        # A browser always names the origin of a web socket.
        foreign = origin != self.public_url if request.path.endswith("/ws") else origin not in {None, self.public_url}
        if request.host != f"{HOST}:{self.port}" or foreign:
            raise web.HTTPForbidden(text=f"expected a request to {self.public_url} by its own page\n")
        given = request.path.split("/")[1].encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, self.token.encode()) and not DOWNLOAD.fullmatch(request.path):
            raise web.HTTPForbidden(text="expected the whole address that rotnet-tui --serve printed\n")
        return await handler(request)

    async def _add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """Keep the page from being framed, from telling its address to others, and from loading anything of theirs."""
        response.headers.update(
            {
                "Content-Security-Policy": (
                    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
                    f"img-src 'self' data:; font-src 'self' data:; connect-src 'self' ws://{HOST}:{self.port}; "
                    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
                ),
                "Referrer-Policy": "no-referrer",
                "Cross-Origin-Resource-Policy": "same-origin",
                "X-Content-Type-Options": "nosniff",
                "Cache-Control": "no-store",
            }
        )

    async def on_startup(self, app: web.Application) -> None:
        """Print the address."""
        print(f"rotnet-tui is at {self.address}", flush=True)
        print("Whoever has this address can use it as you do. Ctrl-C ends it; runs go on.", flush=True)
