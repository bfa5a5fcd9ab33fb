"""`python -m train.stand_ins`: the former name of `maskgil export stand-ins`."""

import sys

from maskgil.command_line import Command, run
from train.stand_ins.stand_in_tables import build_stand_ins

if __name__ == "__main__":
    sys.exit(run(Command("", lambda: build_stand_ins), "maskgil export stand-ins"))
