"""`maskgil key`: make an API key for a program."""

from typing import Annotated

from tyro.conf import Positional, arg

from maskgil.command_line import Command


def make_key(
    name: Annotated[Positional[str], arg(metavar="NAME")], limit: Annotated[int | None, arg(metavar="INT")] = None
) -> None:
    """Make an API key: print it for the program, and its line for the file of --api-keys.

    Args:
        name: Whose key it is: letters, digits, _, . and -.
        limit: Requests a minute. Left out: no limit.
    """
    from app.web.api_keys import key_line, new_key

    key = new_key()
    line = key_line(name, key, limit)
    print(f"key, for the program:  {key}\nline, for --api-keys: {line}")


def _load():
    return make_key


COMMAND = Command("Make an API key for the server's --api-keys.", _load)
