"""Other pages, users and machines that reach the port of `rotnet-tui --serve`."""

import asyncio
import hmac
import socket
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from rotnet_tui.web import PrivateServer

PATHS = ("", "ws", "static/js/textual.js", "download/0", "download/" + 32 * "0")


@asynccontextmanager
async def serving():
    """A server whose terminal UI ends at once; and a client that sends what it is told to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = PrivateServer("true", port, "rotnet-tui")
    runner = web.AppRunner(await server._make_app())
    await runner.setup()
    await web.TCPSite(runner, server.host, port).start()
    async with aiohttp.ClientSession() as client:
        yield server, client
    await runner.cleanup()


async def status_of(client, url, **headers):
    async with client.get(url, headers=headers) as answer:
        return answer.status


def with_server(check):
    async def run():
        async with serving() as (server, client):
            await check(server, client)

    asyncio.run(run())


def test_the_page_at_the_printed_address_works(capsys):
    async def check(server, client):
        printed = capsys.readouterr().out
        assert server.address in printed and server.address.startswith(f"http://127.0.0.1:{server.port}/")
        async with client.get(server.address) as answer:
            page = await answer.text()
            assert answer.status == 200 and "rotnet-tui" in page
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "http" not in policy
            assert answer.headers["Referrer-Policy"] == "no-referrer"
        socket_url = f"{server.address.replace('http', 'ws')}ws"
        assert f'"{socket_url}"' in page and f"{server.address}static/js/textual.js" in page
        assert await status_of(client, f"{server.address}static/js/textual.js") == 200
        async with client.ws_connect(socket_url, headers={"Origin": server.public_url}):
            pass

    with_server(check)


@pytest.mark.parametrize("wrong", ["", "x" * 32 + "/", "%ff/", "cut off", "longer", "other case"])
def test_without_the_token_nothing_is_served(wrong):
    async def check(server, client):
        token = {"cut off": server.token[:-1], "longer": server.token + "x", "other case": server.token.swapcase()}
        for path in PATHS[:-1]:
            url = f"{server.public_url}/{token[wrong] + '/' if wrong in token else wrong}{path}"
            assert await status_of(client, url, Origin=server.public_url) == 403, url
        # A download of which no page was told.
        assert await status_of(client, f"{server.public_url}/{PATHS[-1]}") == 404

    with_server(check)


@pytest.mark.parametrize("path", PATHS)
def test_another_page_is_turned_away_even_if_it_knew_the_token(path):
    async def check(server, client):
        url = server.address + path
        foreign = (
            "http://stranger.example",
            "null",
            f"http://127.0.0.1:{server.port + 1}",
            f"http://localhost:{server.port}",
        )
        for origin in foreign:
            assert await status_of(client, url, Origin=origin) == 403, origin
        if path == "ws":
            assert await status_of(client, url) == 403

    with_server(check)


@pytest.mark.parametrize("path", PATHS)
def test_a_name_of_others_that_leads_here_is_turned_away(path):
    """A page of `stranger.example`, whose address then becomes 127.0.0.1: its requests are of its own origin."""

    async def check(server, client):
        for host in (f"stranger.example:{server.port}", "127.0.0.1", f"127.0.0.1.stranger.example:{server.port}"):
            url = server.address + path
            for headers in ({"Host": host}, {"Host": host, "Origin": server.public_url}):
                assert await status_of(client, url, **headers) == 403, host

    with_server(check)


def test_the_token_is_long_new_each_time_and_compared_in_constant_time(monkeypatch):
    first, second = PrivateServer("true", 8617, ""), PrivateServer("true", 8617, "")
    assert len(first.token) >= 32 and first.token != second.token
    compared = []
    equal = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda *both: compared.append(both) or equal(*both))

    async def check(server, client):
        await status_of(client, f"{server.public_url}/guess/")
        assert compared == [(b"guess", server.token.encode())]

    with_server(check)
