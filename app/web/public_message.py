"""Errors as visitors and programs read them: without the folders of the server.

The commands of this machine name whole paths. What leaves the server names a file by its last name or, below the
folders of weights and pictures, by its place there.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from app.core import paths
from maskgil import model_folder

# An absolute path. That of a URL has its host before it.
PATH = re.compile(r"""(?<![\w/.~])(?:/[^\s/'"“”‘’(),;:]+)+/?""")


def public_message(error: object) -> str:
    """The text of an error on one line, with no absolute path in it."""
    text = " ".join(str(error).split())
    for folder in (model_folder.weights_folder(), paths.gallery_folder()):  # their names may have spaces
        for path in {os.path.abspath(folder), os.path.realpath(folder)} - {os.sep}:
            text = text.replace(f"{path}{os.sep}", "").replace(path, PurePath(path).name)
    return PATH.sub(lambda path: PurePath(path[0]).name, text)


def message_text(message: Mapping[str, Any]) -> str:
    """The JSON of a message to a page. The text of an error is public_message's."""
    if message.get("type") == "error":
        message = {**message, "message": public_message(message["message"])}
    return json.dumps(message)
