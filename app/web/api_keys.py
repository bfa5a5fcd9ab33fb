"""API keys: random texts that programs send as "Authorization: Bearer KEY". The server stores their hashes only.

A key file has a line for each key: name, SHA-256 of the key, and optionally its limit of requests a minute. Lines that
begin with # are comments. `maskgil key NAME` prints a new key, and the line for the file. A limit holds for each server
process (ApiKeys).
"""

import hashlib
import re
import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

LINE = re.compile(r"(?P<name>[\w.-]{1,64})\s+(?P<hash>[0-9a-f]{64})(?:\s+(?P<limit>\d{1,6}))?")


@dataclass(frozen=True)
class ApiKey:
    """The owner of a key. `limit`: requests a minute, None for no limit."""

    name: str
    digest: str
    limit: int | None = None


class ApiKeys:
    """The keys of a server, and how often each was used in the last minute. Safe to use from several threads.

    The uses are counted in this process, through which all requests to the replicas of one `maskgil serve` pass.
    Servers that share a file count apart: N of them let N times the limit through.
    """

    def __init__(self, keys: list[ApiKey]):
        self._by_digest = {key.digest: key for key in keys}
        self._uses: dict[str, deque[float]] = {key.name: deque() for key in keys}
        self._lock = threading.Lock()

    @staticmethod
    def read(path: Path) -> "ApiKeys":
        """Raises ValueError for a file that is missing, has no key, or has a line that is none."""
        try:
            lines = path.expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the API keys in {path} cannot be read ({error}): give another --api-keys") from None
        keys: list[ApiKey] = []
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            match = LINE.fullmatch(line.strip())
            if match is None:
                raise ValueError(
                    f"line {number} of {path} is no API key: give a name, the SHA-256 of the key and, if wanted, its "
                    "requests a minute; `maskgil key NAME` prints such a line"
                )
            if any(key.name == match["name"] for key in keys):
                raise ValueError(f"line {number} of {path} repeats the name {match['name']}: give each key its own")
            keys.append(ApiKey(match["name"], match["hash"], int(match["limit"]) if match["limit"] else None))
        if not keys:
            raise ValueError(f"{path} has no API key: `maskgil key NAME` prints a line for it")
        return ApiKeys(keys)

    def find(self, authorization: str | None) -> ApiKey | None:
        """The key that an Authorization header carries; None for none and for an unknown one."""
        scheme, _, text = (authorization or "").partition(" ")
        return self._by_digest.get(hash_key(text.strip())) if scheme.lower() == "bearer" else None

    def seconds_until_free(self, key: ApiKey) -> float:
        """Counts one request of this key and returns 0; over its limit, counts nothing and returns the seconds until
        the next request is allowed."""
        if key.limit is None:
            return 0.0
        now = time.monotonic()
        with self._lock:
            uses = self._uses[key.name]
            while uses and uses[0] <= now - 60:
                uses.popleft()
            if len(uses) >= key.limit:
                return uses[0] + 60 - now if uses else 60.0
            uses.append(now)
        return 0.0


def hash_key(key: str) -> str:
    """The SHA-256 of a key. Keys have 192 random bits, so the hash needs no salt and no slow function."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def new_key() -> str:
    """A random key of 192 bits."""
    return f"mg-{secrets.token_urlsafe(24)}"


def key_line(name: str, key: str, limit: int | None = None) -> str:
    """The line of a key in the file of keys. ValueError for a name or a limit that a line cannot hold."""
    line = f"{name} {hash_key(key)}" + (f" {limit}" if limit else "")
    if LINE.fullmatch(line) is None:
        raise ValueError("the name may have letters, digits, _, . and -, and the limit at most 6 digits")
    return line


if __name__ == "__main__":
    raise SystemExit("error: this command is `maskgil key` now")
