"""The subcommands of `maskgil`, one file each: a COMMAND or a GROUP that app/cli.py lists."""
