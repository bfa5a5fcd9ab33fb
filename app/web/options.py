"""The options of the web server, once: the command line shows them, app/web/server.py uses them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, UseAppendAction, arg

DEFAULT_PORT = 8501


@dataclass(frozen=True)
class ServerOptions:
    """Where and how the page and the HTTP API are served."""

    port: int = DEFAULT_PORT
    """The port to listen on; 0 takes a free one, which is printed."""
    address: str = "127.0.0.1"
    """The address to listen on. 0.0.0.0 is all of IPv4 and needs --api-keys or --no-auth."""
    public_url: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="URL")] = ()
    """An address of the page, such as https://studio.example.com. Other host names are refused. Repeatable."""
    root_path: Annotated[str, arg(metavar="PATH")] = ""
    """The path under which a reverse proxy serves the page, for example /studio. The proxy may remove it or not."""
    trusted_proxy: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="ADDRESS")] = ()
    """An address or network, for example 10.0.0.0/8, whose X-Forwarded-For, -Proto and -Host are used. Repeatable."""
    tls_cert: Annotated[Path | None, arg(metavar="FILE")] = None
    """A PEM certificate: serve HTTPS. Browsers give the microphone to HTTPS pages and to localhost only."""
    tls_key: Annotated[Path | None, arg(metavar="FILE")] = None
    """The private key of --tls-cert."""
    api_keys: Annotated[Path | None, arg(metavar="FILE")] = None
    """Hashes of the keys that programs send as "Authorization: Bearer KEY", one a line (`maskgil key NAME`)."""
    no_auth: FlagCreatePairsOff[bool] = False
    """Serve the HTTP API to everybody who reaches the address, without keys."""
    operator_key: Annotated[str | None, arg(metavar="KEY")] = None
    """Whoever types this key into the page may load and fetch models. On localhost without a proxy everybody may."""
    log_prompts: FlagCreatePairsOff[bool] = False
    """Write the prompts of API requests to the log."""

    @property
    def has_proxy(self) -> bool:
        """Whether an option says that a reverse proxy is in front."""
        return bool(self.public_url or self.root_path or self.trusted_proxy)
