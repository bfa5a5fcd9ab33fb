"""Who may use the server: the Host and Origin that a request names, the proxies that are trusted, the operator.

A page of another site reaches this server through its visitor's browser in two ways: directly, with its own Origin, or
by DNS rebinding, with its own name as Host. Both are refused on every route and socket.
"""

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from app.web.options import ServerOptions

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
WILDCARDS = ("0.0.0.0", "::")
FORWARDED = ("forwarded", "via", "x-real-ip", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto")
IS_LOCAL = "x-maskgil-local"  # set by the server on each request: 1 for a client on this machine, without a proxy

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Origin(NamedTuple):
    """A web origin; `host` in lower case, without brackets."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if DEFAULT_PORTS.get(self.scheme) == self.port else f":{self.port}"
        return f"{self.scheme}://{host}{port}"


def parse_origin(url: str) -> Origin | None:
    """The origin of a URL; None for what has none, such as `null`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or parts.username is not None:
        return None
    return Origin(parts.scheme, parts.hostname.lower().rstrip("."), port or DEFAULT_PORTS[parts.scheme])


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class AccessPolicy:
    """The rules of one server.

    address          the address that it listens on
    public_urls      origins of --public-url
    trusted_proxies  networks whose X-Forwarded-* headers are used
    operator_key     the key of --operator-key, or None
    has_proxy        an option says that a proxy is in front: then a local client is no operator
    """

    address: str = "127.0.0.1"
    public_urls: tuple[Origin, ...] = ()
    trusted_proxies: tuple[Network, ...] = ()
    operator_key: str | None = field(default=None, repr=False)
    has_proxy: bool = False

    @staticmethod
    def of(options: ServerOptions) -> "AccessPolicy":
        """Raises ValueError for a URL or a network that cannot be read."""
        origins = []
        for url in options.public_url:
            origin = parse_origin(url)
            if origin is None or origin.scheme not in ("http", "https"):
                raise ValueError(f"--public-url {url!r} is no address: give one such as https://studio.example.com")
            origins.append(origin)
        networks = []
        for text in options.trusted_proxy:
            try:
                networks.append(ipaddress.ip_network(text, strict=False))
            except ValueError:
                raise ValueError(
                    f"--trusted-proxy {text!r} is no address or network: give 10.0.0.5 or 10.0.0.0/8"
                ) from None
        return AccessPolicy(
            options.address, tuple(origins), tuple(networks), options.operator_key or None, options.has_proxy
        )

    @property
    def is_public(self) -> bool:
        """Whether other machines reach the server."""
        return not is_loopback(self.address) or any(not is_loopback(origin.host) for origin in self.public_urls)

    def host_allowed(self, host: str | None, scheme: str = "http") -> bool:
        """Whether a Host header names this server. An IP address is allowed where all addresses are listened on: DNS
        rebinding needs a name."""
        origin = parse_origin(f"{scheme}://{host}") if host else None
        if origin is None or not host or any(c in host for c in "/?#@"):
            return False
        if is_loopback(origin.host) or origin.host == self.address.lower():
            return True
        if self.address in WILDCARDS and is_ip_address(origin.host):
            return True
        return any(origin.host == public.host for public in self.public_urls)

    def public_base(self, scope: Mapping[str, Any]) -> str:
        """The address under which the client of this request reaches the server, for links: the --public-url of the
        same host name or the first one, else what Host says."""
        host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "localhost")
        asked = parse_origin(f"{scope['scheme']}://{host}")
        same = [origin for origin in self.public_urls if asked is not None and origin.host == asked.host]
        return str((*same, *self.public_urls)[0]) if self.public_urls else f"{scope['scheme']}://{host}"

    def origin_allowed(self, origin: str, host: str, scheme: str = "http") -> bool:
        """Whether a page of this origin may use the server: a public URL, or the very address of the request."""
        page, server = parse_origin(origin), parse_origin(f"{scheme}://{host}")
        if page is None or server is None:
            return False
        return page in self.public_urls or (page.host, page.port) == (server.host, server.port)

    def trusts(self, address: str) -> bool:
        """Whether the peer at this address is a trusted proxy."""
        try:
            peer = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(peer in network for network in self.trusted_proxies)

    def is_local(self, peer: str, headers: Mapping[str, str]) -> bool:
        """Whether a request comes from this machine and through no proxy."""
        return is_loopback(peer) and not self.has_proxy and not any(name in headers for name in FORWARDED)

    def is_operator(self, headers: Mapping[str, str], key: str = "") -> bool:
        """Whether a visitor may change what everybody uses: by the operator's key, or by being on this machine.

        headers  those of the visitor's connection, as the server passed them on (IS_LOCAL)
        key      what the visitor typed
        """
        if self.operator_key and key and hmac.compare_digest(key.encode(), self.operator_key.encode()):
            return True
        return headers.get(IS_LOCAL) == "1"

    def describe_hosts(self) -> str:
        """The addresses that are allowed, for messages."""
        names = [str(origin) for origin in self.public_urls]
        return ", ".join([*names, self.address if self.address not in WILDCARDS else "its IP address", "localhost"])


_policy: AccessPolicy | None = None


def set_policy(policy: AccessPolicy) -> None:
    """The policy of this process's server; `build` sets it."""
    global _policy
    _policy = policy


def get_policy() -> AccessPolicy | None:
    """The policy of this process's server; None when this process serves nothing."""
    return _policy
