#!/bin/bash
# XXL, sharded over four machines of eight GPUs: sbatch train/launch/slurm.sh data=cache/t2i-256 out=runs/t2i-xxl-256
# A job that is preempted or runs out of time is queued again and goes on from its last checkpoint.
#SBATCH --job-name=t2i-xxl
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -eu
export OMP_NUM_THREADS=8
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun "${PYTHON:-.venv/bin/python}" -m torch.distributed.run --nnodes "$SLURM_NNODES" --nproc_per_node 8 \
  --rdzv_backend c10d --rdzv_id "$SLURM_JOB_ID" --rdzv_endpoint "$HEAD:29500" \
  -m train "${RECIPE:-t2i-xxl-256}" shard=yes "$@"
