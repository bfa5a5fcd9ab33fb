"""The command line: `maskgil --help`. `python -m app` is the same command.

A subcommand is a file of app/commands and a line of `commands`. A wrong request ends with one line on stderr that says
what is wrong and what to do, exit status 2, and no file.
"""

import sys

from app.commands import (
    bench_commands,
    completion_command,
    convert_commands,
    data_commands,
    edit_command,
    eval_commands,
    export_commands,
    generate_command,
    key_command,
    listen_command,
    models_command,
    read_command,
    serve_command,
    train_commands,
    ui_command,
)
from maskgil.command_line import CommandGroup, CommandTree, run

EXAMPLES = """\
examples:
  maskgil generate "two cats on the beach" --out cats.png
  maskgil generate "a sailboat at night" --n 4 --seed 7 --steps 16 --size 320x192
  maskgil generate "a fox left of a castle" --mode hybrid --ar-tokens 32
  maskgil generate "a red apple" --model scenes-emigm --out apple.png
  maskgil edit cats.png "two dogs on the beach" --out dogs.png
  maskgil read "a photo of a poodle and 2 cats"
  maskgil listen speech.wav --out spoken.png
  maskgil models
  maskgil ui
  maskgil serve --replicas 2"""


def commands() -> dict[str, CommandTree]:
    """{name: subcommand}, in the order of the help page."""
    return {
        "generate": generate_command.COMMAND,
        "edit": edit_command.COMMAND,
        "listen": listen_command.COMMAND,
        "read": read_command.COMMAND,
        "ui": ui_command.COMMAND,
        "serve": serve_command.COMMAND,
        "key": key_command.COMMAND,
        "models": models_command.COMMAND,
        "train": train_commands.GROUP,
        "data": data_commands.GROUP,
        "export": export_commands.GROUP,
        "eval": eval_commands.GROUP,
        "convert": convert_commands.GROUP,
        "bench": bench_commands.GROUP,
        "completion": completion_command.command(ROOT),
    }


ROOT = CommandGroup("Type or speak, get a picture.", commands, EXAMPLES)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 interrupted or failed, 2 asked for something impossible."""
    return run(ROOT, "maskgil", arguments)


if __name__ == "__main__":
    sys.exit(main())
