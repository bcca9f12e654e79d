"""Asking an application without a network, one request at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx


class Client:
    """Speaks to one ASGI application, as if from some address."""

    def __init__(self, application: Any, base: str, peer: str, headers: Mapping[str, str]) -> None:
        self._application = application
        self._base = base
        self._peer = peer
        self._headers = dict(headers)

    def get(self, path: str, **how: Any) -> httpx.Response:
        """A GET."""
        return self.request("GET", path, **how)

    def post(self, path: str, **how: Any) -> httpx.Response:
        """A POST."""
        return self.request("POST", path, **how)

    def request(self, method: str, path: str, **how: Any) -> httpx.Response:
        """Any request; redirects are not followed."""

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._application, client=(self._peer, 1))
            async with httpx.AsyncClient(transport=transport, base_url=self._base, headers=self._headers) as client:
                return await client.request(method, path, **how)

        return asyncio.run(ask())
