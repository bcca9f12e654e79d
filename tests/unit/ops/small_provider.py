"""A small OpenID Connect provider on loopback: real HTTP, real keys. It plays by the rules unless a test bends them."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from secrets import token_urlsafe
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

CLIENT, SECRET = "jobs", "a secret: with % and +"


def unsigned(claims: dict[str, Any]) -> str:
    """A token by the algorithm `none`."""
    parts = ({"alg": "none", "typ": "JWT"}, claims)
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return f"{texts[0]}.{texts[1]}."


class SmallProvider:
    """Somebody logs in by visiting it: who that is, `person` says."""

    def __init__(self) -> None:
        self.person: dict[str, Any] = {"sub": "1", "preferred_username": "jane", "groups": ["shop-ops"]}
        self.claims: dict[str, Any] = {}
        """Put over what its tokens would say; None leaves a claim out."""
        self.unsigned = False
        self.now: Callable[[], float] = time.time
        self.published = self.key = self._new_key()
        """The key that it publishes, and the one that it signs with."""
        self.discovery: dict[str, Any] = {}
        """Put over what it says of itself."""
        self.asked: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.get(self)

            def do_POST(self) -> None:
                provider.post(self)

            def log_message(self, *_: Any) -> None:
                """Not into the tests' output."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        """Go away: nobody listens there any more."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def rotate(self) -> None:
        """Sign with another key from now on, and publish it."""
        self.published = self.key = self._new_key()

    def forge(self) -> None:
        """Sign with a key that claims to be the published one."""
        kid = self.published.kid or ""
        self.key = ECKey.generate_key("P-256", {"kid": kid, "alg": "ES256", "use": "sig"})

    @staticmethod
    def _new_key() -> ECKey:
        return ECKey.generate_key("P-256", {"kid": token_urlsafe(6), "alg": "ES256", "use": "sig"})

    def get(self, request: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(request.path)
        self.asked.append(parts.path)
        if parts.path == "/.well-known/openid-configuration":
            facts = {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "end_session_endpoint": f"{self.issuer}/leave",
            }
            _answer(request, 200, {**facts, **self.discovery})
        elif parts.path == "/keys":
            _answer(request, 200, dict(KeySet([self.published]).as_dict(private=False)))
        elif parts.path == "/authorize":
            asked = dict(parse_qsl(parts.query))
            assert asked["response_type"] == "code"
            assert (asked["client_id"], asked["code_challenge_method"]) == (CLIENT, "S256")
            assert "openid" in asked["scope"].split()
            code = token_urlsafe(12)
            self._codes[code] = asked
            request.send_response(302)
            back = urlencode({"code": code, "state": asked["state"], "iss": self.issuer})
            request.send_header("location", f"{asked['redirect_uri']}?{back}")
            request.end_headers()
        else:
            _answer(request, 404, {})

    def post(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        body = request.rfile.read(int(request.headers["content-length"])).decode()
        sent = {name: values[0] for name, values in parse_qs(body).items()}
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        name, _, secret = base64.b64decode(value).decode().partition(":")
        asked = self._codes.pop(sent.get("code", ""), None)
        digest = hashlib.sha256(sent.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (kind.lower(), unquote(name), secret) != ("basic", CLIENT, SECRET):
            _answer(request, 401, {"error": "invalid_client"})
        elif asked is None or asked["code_challenge"] != challenge or asked["redirect_uri"] != sent["redirect_uri"]:
            _answer(request, 400, {"error": "invalid_grant", "error_description": "this code is none"})
        else:
            token = self._token(asked["nonce"])
            _answer(request, 200, {"access_token": "x", "token_type": "Bearer", "expires_in": 60, "id_token": token})

    def _token(self, nonce: str) -> str:
        now = int(self.now())
        claims = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": nonce, **self.person}
        claims = {name: value for name, value in {**claims, **self.claims}.items() if value is not None}
        if self.unsigned:
            return unsigned(claims)
        return jwt.encode({"alg": "ES256", "kid": self.key.kid}, claims, self.key)


def _answer(request: BaseHTTPRequestHandler, status: int, body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    request.send_response(status)
    request.send_header("content-type", "application/json")
    request.send_header("content-length", str(len(data)))
    request.end_headers()
    request.wfile.write(data)
