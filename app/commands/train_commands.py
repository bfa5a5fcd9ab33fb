"""`maskgil train RECIPE`: the recipes of train/, each with its own options."""

from train.commands import TRAIN

GROUP = TRAIN
