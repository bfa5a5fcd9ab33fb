#!/bin/sh
# Cache, then the three stages, on the GPUs of one machine. From the repository's root:
#   GPUS=8 SHARDS='laion/{00000..00999}.tar' sh train/launch/torchrun.sh
# Stopped or killed anywhere, the same command goes on where it was.
set -eu
GPUS=${GPUS:-8}
SHARDS=${SHARDS:?say where the pictures are, for example SHARDS='laion/{00000..00999}.tar'}
TOKENIZER=${TOKENIZER:-weights/llamagen-vq16}  # maskgil convert llamagen-vq vq_ds16_t2i.pt $TOKENIZER
ENCODER=${ENCODER:-google/flan-t5-xl}
PYTHON=${PYTHON:-.venv/bin/python}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-8}

init=""
for size in 256 512 1024; do
  "$PYTHON" -m torch.distributed.run --standalone --nproc_per_node "$GPUS" -m app data images \
    --source "$SHARDS" --tokenizer "$TOKENIZER" --text-encoder "$ENCODER" --size $size --out cache/t2i-$size
  "$PYTHON" -m torch.distributed.run --standalone --nproc_per_node "$GPUS" -m train t2i-xl-$size \
    --data cache/t2i-$size --tokenizer "$TOKENIZER" $init --out runs/t2i-xl-$size
  init="--init runs/t2i-xl-$size/export"
done
