"""The Slurm script without Slurm: what happens five minutes before a job's time is up."""

import inspect
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import parallel_run
import pytest

from train.commands import recipes
from train.recipe import batches_of_process

SCRIPT = Path(__file__).resolve().parents[2] / "train" / "launch" / "slurm.sh"


def started(folder: Path, srun: str) -> subprocess.Popen:
    """The script with an srun of our own, and an scontrol that writes down what it is asked."""
    for name, body in (("srun", srun), ("scontrol", f'echo "$@" >> {folder}/asked; echo host')):
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "n[1-4]", "SLURM_NNODES": "4", "SLURM_JOB_ID": "77", "SLURM_CPUS_PER_TASK": "64"}
    return subprocess.Popen(
        ["bash", SCRIPT, "--data=x", "--out=y"], env=os.environ | job | {"PATH": f"{folder}:{os.environ['PATH']}"}
    )


def test_a_job_out_of_time_saves_and_asks_to_run_again(tmp_path):
    """As Slurm does it: USR1 to the script alone. The run has all the time it needs to save."""
    saves = f"trap 'sleep 0.5; touch {tmp_path}/saved; exit 0' TERM"
    run = f"{saves}; touch {tmp_path}/runs; while :; do sleep 0.1; done"
    process = started(tmp_path, run)
    deadline = time.monotonic() + 60
    while not (tmp_path / "runs").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=60) == 0
    assert (tmp_path / "saved").exists()
    assert (tmp_path / "asked").read_text().splitlines()[-1] == "requeue 77"


@pytest.mark.parametrize("code", [0, 3])
def test_a_job_that_ends_by_itself_is_not_run_again(tmp_path, code):
    assert started(tmp_path, f"exit {code}").wait(timeout=60) == code
    assert "requeue" not in (tmp_path / "asked").read_text()


def test_every_gpu_of_the_script_has_its_share_of_a_step(tmp_path):
    """And of the machine's cores, which srun does not give by itself."""
    assert started(tmp_path, f'echo "$SRUN_CPUS_PER_TASK $@" > {tmp_path}/ran').wait(timeout=60) == 0
    cores, *words = (tmp_path / "ran").read_text().split()
    torchrun, (name, *pairs) = words[: words.index("train")], words[words.index("train") + 1 :]
    nodes, each = re.search(r"--nodes=(\d+)", SCRIPT.read_text())[1], torchrun[torchrun.index("--nproc_per_node") + 1]
    gpus = int(nodes) * int(each)
    defaults = inspect.signature(recipes()[name]).parameters["options"].default
    sizes = {"batch": defaults.batch, "micro": int(pairs[pairs.index("--micro") + 1])}
    assert (cores, gpus) == ("64", 32) and pairs[-2:] == ["--data=x", "--out=y"]
    assert batches_of_process(parallel_run.recipe(batches=sizes["batch"] // sizes["micro"]), gpus) >= 1


def test_slurm_is_asked_to_tell_in_time():
    script = SCRIPT.read_text()
    assert "#SBATCH --signal=B:USR1@300" in script and "--shutdown-timeout 240" in script
