"""The launch scripts: from pictures to a folder with two processes, and Slurm's without Slurm, out of time too."""

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import parallel_run
import pytest
from app_fixtures import tiny_model
from commands import maskgil
from PIL import Image

import text_encoder
from maskgil.pipeline import SamplingParams, TextToImage
from train.commands import recipes
from train.recipe import batches_of_process

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "train" / "launch" / "slurm.sh"
SMALL = "--preset tiny --dim 32 --layers 1 --heads 2"
SHORT = "--steps 3 --batch 4 --micro 2 --workers 0 --warmup 1 --save-every 2 --sample-every 0 --ema 0.5"


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


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    """A tiny tokenizer and text encoder in model/, twelve captioned pictures in pictures/."""
    folder = tmp_path_factory.mktemp("launch")
    tiny_model(folder / "model")
    (folder / "pictures").mkdir()
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 255, (256, 256, 3), np.uint8)
        Image.fromarray(noise).save(folder / "pictures" / f"{number}.png")
        (folder / "pictures" / f"{number}.txt").write_text("two cats on the beach" if number % 2 else "a red apple")
    return folder


def environment(given: Path, work: Path, **more: str) -> dict[str, str]:
    own = {"GPUS": "2", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, "SIZES": "256",
           "SHARDS": str(given / "pictures"), "TOKENIZER": str(given / "model" / "tokenizer"),
           "ENCODER": str(given / "model" / "text_encoder"), "WORK": str(work), "OUT": str(work / "made"),
           "DATA": "--shape square", "EXPORT": "--shape square"}  # fmt: skip
    return os.environ | own | more


def draws(folder: Path) -> bool:
    model = TextToImage.load(folder, text_encoder.load)
    return model.images(["a red apple"], [1], settings=SamplingParams(steps=2))[0].size == (256, 256)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("script, how", [("torchrun", ""), ("torchrun", "--shard"), ("accelerate", "--shard")])
def test_two_processes_make_a_folder_of_pictures(given, tmp_path, script, how):
    """DDP and FSDP2 (gloo, CPU): cache, training and export by one script."""
    done = subprocess.run(
        ["sh", ROOT / "train" / "launch" / f"{script}.sh"], cwd=ROOT, text=True, capture_output=True,
        env=environment(given, tmp_path, RECIPE=f"t2i {SMALL}", OPTIONS=f"{SHORT} {how}"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "runs" / "t2i-256" / "run.json").read_text())["processes"] == 2
    assert draws(tmp_path / "made")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_slurms_script_makes_a_folder_of_pictures(given, tmp_path):
    """With an srun that runs its command here: one machine of two processes, sharded."""
    cached = tmp_path / "cache"
    maskgil("data", "images", "--source", given / "pictures", "--tokenizer", given / "model" / "tokenizer",
            "--text-encoder", given / "model" / "text_encoder", "--shape", "square", "--out", cached)  # fmt: skip
    for name, body in (("srun", 'exec "$@"'), ("scontrol", "echo localhost")):
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "n1", "SLURM_NNODES": "1", "SLURM_JOB_ID": "78", "SLURM_CPUS_PER_TASK": "2",
           "SLURM_GPUS_ON_NODE": "2", "PATH": f"{tmp_path}:{os.environ['PATH']}"}  # fmt: skip
    done = subprocess.run(
        ["bash", SCRIPT, *SHORT.split(), "--data", cached, "--out", tmp_path / "run"], cwd=ROOT, text=True,
        capture_output=True, env=environment(given, tmp_path, RECIPE=f"t2i {SMALL} --shard", **job),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    maskgil("export", "text", "--generator", tmp_path / "run" / "export", "--tokenizer", given / "model" / "tokenizer",
            "--text-encoder", given / "model" / "text_encoder", "--size", 256, "--shape", "square", "--out",
            tmp_path / "made")  # fmt: skip
    assert draws(tmp_path / "made")
