#!/bin/sh
# From pictures to a model folder on the GPUs of one machine: cache, stages, export. From the repository's root:
#   GPUS=8 SHARDS='laion/{00000..00999}.tar' sh train/launch/torchrun.sh
#   GPUS=2 SHARDS=holiday SIZES=256 RECIPE='t2i --preset b' OPTIONS='--steps 5000' sh train/launch/torchrun.sh
# Stopped or killed anywhere, the same command goes on where it was. On a machine without GPUs: ACCELERATE_USE_CPU=true.
set -eu
GPUS=${GPUS:-8}
SHARDS=${SHARDS:?say where the pictures are, for example SHARDS='laion/{00000..00999}.tar'}
TOKENIZER=${TOKENIZER:-weights/llamagen-vq16}  # maskgil convert llamagen-vq vq_ds16_t2i.pt $TOKENIZER
ENCODER=${ENCODER:-google/flan-t5-xl}
SIZES=${SIZES:-256 512 1024}  # one stage each, from the last one's export
RECIPE=${RECIPE:-}            # of all stages; left out: t2i-xl-SIZE
OPTIONS=${OPTIONS:-}          # of all stages, such as --shard
DATA=${DATA:-}                # options of the cache, such as --shape square
WORK=${WORK:-.}               # where cache/ and runs/ go
OUT=${OUT:-weights/t2i}       # the model folder
PYTHON=${PYTHON:-.venv/bin/python}
LAUNCH=${LAUNCH:-"$PYTHON -m torch.distributed.run --standalone --nproc_per_node $GPUS -m"}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-8}

init="" sizes=""
for size in $SIZES; do
  $LAUNCH app data images --source "$SHARDS" --tokenizer "$TOKENIZER" --text-encoder "$ENCODER" --size "$size" $DATA \
    --out "$WORK/cache/t2i-$size"
  $LAUNCH train ${RECIPE:-t2i-xl-$size} --data "$WORK/cache/t2i-$size" --tokenizer "$TOKENIZER" $init $OPTIONS \
    --out "$WORK/runs/t2i-$size"
  init="--init $WORK/runs/t2i-$size/export" sizes="$size $sizes"
done
"$PYTHON" -m app export text --generator "${init#--init }" --tokenizer "$TOKENIZER" --text-encoder "$ENCODER" \
  --size $sizes ${EXPORT:-} --out "$OUT"
