"""`maskgil completion`: a script that completes the commands and options of `maskgil` in a shell."""

from typing import Literal

from tyro.conf import Positional

from maskgil.command_line import Command, CommandGroup, completion_script


def command(root: CommandGroup) -> Command:
    """The command for the tree `root`."""

    def completion(shell: Positional[Literal["bash", "zsh"]] = "bash") -> None:
        """Print a script that completes commands and options in a shell.

        bash: maskgil completion bash > ~/.local/share/bash-completion/completions/maskgil
        zsh:  maskgil completion zsh > ~/.zfunc/_maskgil (a folder of fpath)

        Args:
            shell: The shell that reads the script.
        """
        print(completion_script(root, "maskgil", shell))

    return Command("Print a script that completes commands in bash or zsh.", lambda: completion)
