"""An OpenID Connect provider, as we speak to it: where it is asked, what it is asked for, and what is believed of it.

1. *Discovery*: `{issuer}/.well-known/openid-configuration`. It must name the same issuer, and addresses that are HTTPS
   (on this machine HTTP will do). Kept for an hour.
2. *The way there*: an authorization code with PKCE (S256), a fresh `state` and `nonce` for each login.
3. *The way back*: the code is exchanged from here, not through the browser. Of the answer only the ID token is used.
4. *The ID token*: signed by a key of the provider, by one of `ALGORITHMS` (never `none`, never a shared secret), issued
   by this issuer, for this client alone or with it as `azp`, not over, with our nonce. A key that is not known is
   looked for once more at the provider: keys change.
"""

from __future__ import annotations

import hmac
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from secrets import token_urlsafe
from typing import Any
from urllib.parse import urlsplit

import httpx
from authlib.common.errors import AuthlibBaseError
from authlib.deprecate import AuthlibDeprecationWarning
from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from processor.ops.errors import LoginFailed, ProviderUnreachable
from processor.ops.login import is_loopback_name

with warnings.catch_warnings():
    # Of its next HTTP library, which few have: nothing that whoever starts a dashboard could do anything about.
    warnings.simplefilter("ignore", AuthlibDeprecationWarning)
    from authlib.integrations.httpx_client import OAuth2Client

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
KEPT = 3600.0
"""Seconds for which what the provider says of itself is kept."""
LEEWAY = 60
"""Seconds by which its clock may be off."""
_TIMEOUT = httpx.Timeout(5.0)
_LONGEST = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A login that begins."""

    url: str
    """Where the browser is sent."""
    state: str
    nonce: str
    verifier: str
    """PKCE's secret: who has the code alone gets nothing for it."""


class Provider:
    """One provider and our client there. Thread-safe; asks the network, so not from an event loop."""

    def __init__(
        self,
        issuer: str,
        client_id: str,
        client_secret: str,
        *,
        redirect: str,
        scope: str,
        now: Callable[[], float],
    ) -> None:
        """An empty `client_secret` is a public client; `redirect` our address to come back to; `now` seconds since the
        epoch.
        """
        self.issuer = issuer
        self._client_id, self._client_secret = client_id, client_secret
        self._redirect, self._scope, self._now = redirect, scope, now
        self._facts: Mapping[str, Any] = {}
        self._keys: KeySet | None = None
        self._asked_at = float("-inf")
        self._lock = threading.Lock()

    def start(self) -> Start:
        """Begin a login.

        Raises:
            ProviderUnreachable: the provider does not answer, or not as one.
        """
        address = self._address("authorization_endpoint")
        state, nonce, verifier = token_urlsafe(24), token_urlsafe(24), token_urlsafe(48)
        with self._client() as client:
            url, _ = client.create_authorization_url(address, state=state, nonce=nonce, code_verifier=verifier)
        return Start(url=url, state=state, nonce=nonce, verifier=verifier)

    def finish(self, code: str, nonce: str, verifier: str) -> Mapping[str, Any]:
        """Who has come back with this code: the claims of the ID token.

        Raises:
            ProviderUnreachable: the provider does not answer.
            LoginFailed: it refuses the code, or its token is not to be believed.
        """
        address = self._address("token_endpoint")
        try:
            with self._client() as client:
                answer = client.fetch_token(address, grant_type="authorization_code", code=code, code_verifier=verifier)
        except AuthlibBaseError as error:
            raise LoginFailed(f"{self.issuer} refuses this login: {str(error)[:300]}", hint="log in again") from error
        except (httpx.HTTPError, ValueError) as error:
            raise self._unreachable(error) from error
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise LoginFailed(f"{self.issuer} sent no ID token", hint="the scope must contain openid")
        return self._verified(token, nonce)

    @property
    def logout(self) -> str:
        """Where somebody ends their session at the provider; empty: not said."""
        address = self._facts.get("end_session_endpoint", "")
        return address if isinstance(address, str) and _is_safe(address) else ""

    def _verified(self, token: str, nonce: str) -> Mapping[str, Any]:
        try:
            try:
                claims = jwt.decode(token, self._key_set(), algorithms=ALGORITHMS).claims
            except (InvalidKeyIdError, BadSignatureError):
                claims = jwt.decode(token, self._key_set(anew=True), algorithms=ALGORITHMS).claims
            registry = jwt.JWTClaimsRegistry(
                now=int(self._now()),
                leeway=LEEWAY,
                iss={"essential": True, "value": self.issuer},
                aud={"essential": True, "value": self._client_id},
                sub={"essential": True},
                exp={"essential": True},
                iat={"essential": True},
            )
            registry.validate(claims)
        except (JoseError, ValueError, TypeError) as error:
            raise LoginFailed(f"the ID token of {self.issuer} is not believed: {error}", hint="log in again") from error
        many = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if claims.get("azp", None if many else self._client_id) != self._client_id:
            raise LoginFailed(f"the ID token of {self.issuer} is for another client")
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
            raise LoginFailed(f"the ID token of {self.issuer} belongs to another login", hint="log in again")
        return claims

    def _client(self) -> OAuth2Client:
        methods = self._facts.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        wanted = ("client_secret_basic", "client_secret_post") if self._client_secret else ("none",)
        return OAuth2Client(
            self._client_id,
            self._client_secret or None,
            token_endpoint_auth_method=next((each for each in wanted if each in methods), wanted[0]),
            code_challenge_method="S256",
            scope=self._scope,
            redirect_uri=self._redirect,
            timeout=_TIMEOUT,
        )

    def _address(self, name: str) -> str:
        with self._lock:
            if self._now() - self._asked_at >= KEPT:
                self._discover()
        return str(self._facts[name])

    def _discover(self) -> None:
        facts = self._fetched(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
        if facts.get("issuer") != self.issuer:
            raise ProviderUnreachable(
                f"{self.issuer} calls itself {str(facts.get('issuer'))[:200]}",
                hint="set dashboard.oidc_issuer to what it calls itself, to the letter",
            )
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not _is_safe(facts.get(name)):
                raise ProviderUnreachable(f"{self.issuer} names no {name} with https: {str(facts.get(name))[:200]}")
        self._facts, self._keys, self._asked_at = facts, None, self._now()

    def _key_set(self, *, anew: bool = False) -> KeySet:
        with self._lock:
            if self._keys is None or anew:
                try:
                    self._keys = KeySet.import_key_set(self._fetched(self._facts["jwks_uri"]))  # type: ignore[arg-type]  # checked by it
                except (JoseError, ValueError, TypeError, KeyError) as error:
                    raise self._unreachable(error) from error
            return self._keys

    def _fetched(self, url: str) -> Mapping[str, Any]:
        try:
            answer = httpx.get(url, timeout=_TIMEOUT, headers={"accept": "application/json"})
            answer.raise_for_status()
            found = answer.json() if len(answer.content) <= _LONGEST else None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise self._unreachable(error) from error
        if not isinstance(found, dict):
            raise self._unreachable(f"{url} is no JSON object")
        return found

    def _unreachable(self, error: object) -> ProviderUnreachable:
        return ProviderUnreachable(
            f"the identity provider {self.issuer} does not answer as one: {str(error)[:300] or type(error).__name__}",
            hint="try again in a moment; if it stays so, tell whoever runs it",
        )


def _is_safe(address: object) -> bool:
    if not isinstance(address, str):
        return False
    parts = urlsplit(address)
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback_name(parts.hostname or ""))
