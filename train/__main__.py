"""`python -m train RECIPE`: the same as `maskgil train RECIPE`, for torchrun and accelerate."""

import sys

from maskgil.command_line import run
from train.commands import TRAIN

if __name__ == "__main__":
    sys.exit(run(TRAIN, "maskgil train"))
