#!/bin/bash
# XXL, sharded over four machines of eight GPUs: sbatch train/launch/slurm.sh --data cache/t2i-256 --out runs/t2i-xxl-256
# A job that is preempted is queued again by Slurm (--requeue), one that runs out of time by itself: five minutes before
# its end it is signalled, the loop finishes its step and saves, and the job asks to run again.
# --micro 8: a step of 256 pictures is then one batch for each of the 32 GPUs. RECIPE='t2i --preset xl --shard' trains
# another model.
#SBATCH --job-name=t2i-xxl
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
#SBATCH --open-mode=append
set -eu
export OMP_NUM_THREADS=8
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK  # srun has not taken it over from the job since Slurm 22.05
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# torchrun kills its processes half a minute after it was asked to stop, if it is not told to wait for the checkpoint
srun "${PYTHON:-.venv/bin/python}" -m torch.distributed.run --nnodes "$SLURM_NNODES" \
  --nproc_per_node "${SLURM_GPUS_ON_NODE:-8}" --rdzv_backend c10d --rdzv_id "$SLURM_JOB_ID" --rdzv_endpoint "$HEAD:29500" --shutdown-timeout 240 \
  -m train ${RECIPE:-t2i-xxl-256 --shard --micro 8} "$@" &
run=$!
late=""
trap 'late=yes; kill -TERM "$run" || true' USR1  # srun passes it on to every machine
code=0
wait "$run" || code=$?
if [ -n "$late" ]; then
  wait "$run" || true  # the first wait ended with the signal
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
