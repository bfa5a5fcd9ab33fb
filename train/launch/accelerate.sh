#!/bin/sh
# As torchrun.sh, with the same variables, started by accelerate:
#   GPUS=8 SHARDS='laion/{00000..00999}.tar' sh train/launch/accelerate.sh
# --multi_gpu starts one process a GPU; with ACCELERATE_USE_CPU=true they run on the processor.
set -eu
PYTHON=${PYTHON:-.venv/bin/python}
LAUNCH="$PYTHON -m accelerate.commands.launch --multi_gpu --num_processes ${GPUS:-8} --num_machines 1"
LAUNCH="$LAUNCH --mixed_precision no --dynamo_backend no -m"
export LAUNCH PYTHON
exec sh "$(dirname "$0")/torchrun.sh"
