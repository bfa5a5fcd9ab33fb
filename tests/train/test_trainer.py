"""The loop: a killed run goes on to the same losses, checkpoints are whole, tiny models learn."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import types
from dataclasses import replace
from pathlib import Path

import parallel_run
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from maskgil.command_line import one_line
from maskgil.models.config import ModelConfig
from maskgil.models.maskgil import MaskGIL
from train import run_state
from train.ema import EMA
from train.optim import Muon, OptimConfig, build_optimizers, is_matrix, orthogonalise
from train.recipe import OptimizedModule, Recipe
from train.run_state import save_whole
from train.trainer import train


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.drop, self.last = nn.Linear(16, 16), nn.Dropout(0.2), nn.Linear(16, 4)

    def forward(self, x):
        return self.last(self.drop(self.layer(x).relu()))


def batch_at(index: int) -> dict:
    generator = torch.Generator().manual_seed(index)
    x = torch.randn(8, 16, generator=generator)
    return {"x": x, "y": (x[:, :4] > 0).long().argmax(1)}


def loss(modules, batch, generator, step):
    noisy = batch["x"] + 0.1 * torch.randn(batch["x"].shape, generator=generator)
    value = nn.functional.cross_entropy(modules[0](noisy).float(), batch["y"])
    return value, {"loss": value.item()}


def recipe(steps: int = 60, **options) -> Recipe:
    torch.manual_seed(0)
    player = OptimizedModule(Tiny(), loss, OptimConfig(lr=3e-3, muon_lr=0.01, warmup=5))
    defaults = {"precision": "no", "workers": 0, "save_every": 10}
    return Recipe("tiny", steps, (player,), batch_at, **(defaults | options))


def losses(folder: Path) -> dict[int, float]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {r["step"]: r["loss"] for r in rows}


def test_a_run_in_two_parts_equals_one_run(tmp_path):
    whole = train(recipe(), tmp_path / "whole")
    train(recipe(), tmp_path / "parts", stop_at=27)
    again = train(recipe(), tmp_path / "parts")
    assert losses(tmp_path / "whole")[60] == losses(tmp_path / "parts")[60]
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_goes_on_takes_the_rates_that_it_is_told_now(tmp_path):
    def rates(path: Path) -> set[float]:
        groups = torch.load(path / "state.pt", weights_only=True)["optimizers"][0]
        return {group["full_lr"] for optimizer in groups for group in optimizer["param_groups"]}

    made = recipe()
    train(made, tmp_path, stop_at=10)
    assert rates(tmp_path) == {3e-3, 0.01}
    player = replace(made.modules[0], optim=OptimConfig(lr=1e-4, muon_lr=2e-3, warmup=5))
    train(replace(recipe(), modules=(player,)), tmp_path, stop_at=20)
    assert rates(tmp_path) == {1e-4, 2e-3}


def test_what_is_begun_with_other_frozen_weights_does_not_go_on(tmp_path):
    """A generator would be exported beside an encoder whose texts it never read."""

    def reading(seed: int) -> Recipe:
        made = recipe()
        torch.manual_seed(seed)
        made.modules[0].module.layer = nn.Linear(16, 16).requires_grad_(False)
        return made

    train(reading(1), tmp_path, stop_at=10)
    train(reading(1), tmp_path, stop_at=20)
    with pytest.raises(ValueError, match="begun with other weights that stay as they are"):
        train(reading(2), tmp_path, stop_at=30)


def test_what_is_begun_on_data_of_another_tokenizer_does_not_go_on(tmp_path):
    """Its codes would fit as well, and be exported under the other's name. Older checkpoints do not say."""
    train(recipe(), tmp_path, stop_at=10)
    train(recipe(provenance={"tokenizer": "abc"}), tmp_path, stop_at=20)
    train(recipe(provenance={"tokenizer": "abc", "text_encoder": "ghi"}), tmp_path, stop_at=30)
    with pytest.raises(ValueError, match="begun with the tokenizer abc, and this command's data are of def"):
        train(recipe(provenance={"tokenizer": "def", "text_encoder": "ghi"}), tmp_path)
    with pytest.raises(ValueError, match="begun with the text encoder ghi"):
        train(recipe(provenance={"tokenizer": "abc", "text_encoder": "def"}), tmp_path)


def test_another_shape_and_nothing_left_to_do_are_said(tmp_path, capsys):
    train(recipe(), tmp_path, stop_at=20)
    before = (tmp_path / "state.pt").read_bytes()
    train(recipe(), tmp_path, stop_at=10)
    assert "is at step 20 already: nothing is left to train" in capsys.readouterr().out
    wider = recipe()
    wider.modules[0].module.last = nn.Linear(16, 5)
    with pytest.raises(ValueError, match="another recipe: it differs in last.bias, last.weight"):
        train(wider, tmp_path)
    assert (tmp_path / "state.pt").read_bytes() == before


def test_after_a_run_signals_mean_what_they_meant(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    train(recipe(), tmp_path, stop_at=1)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_failed_run_leaves_no_worker_behind(tmp_path):
    """Whatever fails: at exit a worker would be waited for, and go on waiting itself."""

    def fails(modules, batch, generator, step):
        raise ArithmeticError("a loss of the test")

    def breaks(index: int) -> dict:
        raise ValueError("a cache of the test")

    def dies(index: int) -> dict:
        os.kill(os.getpid(), signal.SIGKILL)

    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "tensorboard").write_text("in the way")
    for folder, kind, failing in (
        ("loss", ArithmeticError, replace(recipe(), modules=(OptimizedModule(Tiny(), fails),))),
        ("data", ValueError, replace(recipe(), batch_at=breaks)),
        ("killed", ValueError, replace(recipe(), batch_at=dies)),
        ("blocked", ValueError, recipe()),
    ):
        with pytest.raises(kind) as failure:
            train(replace(failing, workers=1), tmp_path / folder)
        assert failure.traceback  # and with it the frame of the loop
        assert not multiprocessing.active_children(), folder
        if folder == "data":
            assert one_line(failure.value) == "a cache of the test"


def started(folder: Path) -> subprocess.Popen:
    """The tiny recipe in a process of its own, slow enough to be stopped in the middle; returns after a checkpoint."""
    code = (
        f"import sys, time; sys.path[:0] = {[str(folder) for folder in Path(__file__).parents[:3]]!r}\n"
        "from pathlib import Path\n"
        "import test_trainer as t\n"
        "def slow(i):\n    time.sleep(0.05)\n    return t.batch_at(i)\n"
        "r = t.recipe()\nimport dataclasses\n"
        f"t.train(dataclasses.replace(r, batch_at=slow), Path({str(folder)!r}))\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, start_new_session=True)
    deadline = time.monotonic() + 200
    while not (folder / "state.pt").is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None, "the run ended before it could be stopped"
    return process


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on_as_if_nothing_had_been(tmp_path, how):
    """The signal reaches every process of the run, as Ctrl-C and Slurm send it: the data worker too."""
    process = started(tmp_path / "stopped")
    os.killpg(process.pid, how)
    code = process.wait(timeout=100)
    step = torch.load(tmp_path / "stopped" / "state.pt", weights_only=True)["step"]
    assert step < 60 and (step % 10 == 0 if how == signal.SIGKILL else code == 0)
    after = train(recipe(), tmp_path / "stopped")
    whole = train(recipe(), tmp_path / "whole")
    for a, b in zip(whole.parameters(), after.parameters(), strict=True):
        assert torch.equal(a, b)


def test_accumulation_equals_a_larger_batch():
    """Two halves of a batch, averaged, move the model as the whole does."""
    torch.manual_seed(0)
    model = nn.Linear(16, 4)
    x, y = torch.randn(8, 16), torch.randint(0, 4, (8,))
    nn.functional.cross_entropy(model(x), y).backward()
    whole = model.weight.grad.clone()
    model.zero_grad()
    for part in (slice(0, 4), slice(4, 8)):
        (nn.functional.cross_entropy(model(x[part]), y[part]) / 2).backward()
    assert torch.allclose(whole, model.weight.grad, atol=1e-6)


def test_it_learns_and_exports(tmp_path):
    exported = []
    average = train(recipe(300, export=lambda model, folder: exported.append(folder)), tmp_path)
    values = losses(tmp_path)
    assert values[300] < 0.6 * values[20] and exported == [tmp_path / "export"]
    assert not average.training and not any(p.requires_grad for p in average.parameters())


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path):
    """The system itself refuses to write on, in the middle of the file."""
    path = tmp_path / "state.pt"
    save_whole({"step": 1}, path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))
    try:
        with pytest.raises(ValueError, match="free space") as error:
            save_whole({"step": 2, "module": torch.zeros(2**17)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(error.value)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_while_logging_is_one_line(tmp_path):
    """The 40th step's line no longer fits; the checkpoint of the 30th stays. The log is the longest file by far: the
    limit holds for every file, pytest's own too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 0, "loss": 0, "padding": "x" * 2**20}) + "\n")

    def filling(index: int) -> dict:
        if index == 39:
            resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "log.jsonl").stat().st_size, before[1]))
        return batch_at(index)

    try:
        with pytest.raises(ValueError, match="could not write to .*free space, the last checkpoint") as error:
            train(replace(recipe(), batch_at=filling), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(error.value)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 30 and 40 not in losses(tmp_path)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("in the way")
    with pytest.raises(ValueError, match="could not write to"):
        train(recipe(), tmp_path / "run")


def sheet(model: nn.Module, path: Path) -> None:
    Image.new("RGB", (3, 2), "red").save(path)


def test_sheets_reach_the_dashboard(tmp_path):
    train(recipe(sample=sheet, sample_every=30), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(image.step, image.width, image.height) for image in events.Images("samples")] == [(30, 3, 2), (60, 3, 2)]


def test_nought_is_never(tmp_path):
    made = recipe(sample=sheet, sample_every=0, valid_at=batch_at, valid_every=0)
    train(replace(made, save_every=0), tmp_path, stop_at=2)
    assert not (tmp_path / "samples").exists() and not (tmp_path / "state.pt").exists()
    assert "valid" not in (tmp_path / "log.jsonl").read_text()


def test_a_checkpoint_is_written_once_a_step(tmp_path, monkeypatch):
    """Validation writes the best so far; where a checkpoint is due at the same step, that is the one."""
    written = []

    def noted(payload, path):
        written.append(payload["step"])
        save_whole(payload, path)

    monkeypatch.setattr(run_state, "save_whole", noted)
    train(recipe(valid_at=batch_at, valid_every=10), tmp_path, stop_at=20)
    assert written == [10, 20]


def test_a_checkpoint_that_was_loaded_is_written_again_when_asked(tmp_path):
    module = Tiny()
    state = run_state.RunState(recipe(), tmp_path, [module], EMA(module, 0.9), "", 1, True)
    assert state.save() and state.load() == 1 and state.saved_step is None
    (tmp_path / "state.pt").unlink()
    assert state.save() and (tmp_path / "state.pt").is_file()


def test_wandb_goes_on_in_the_run_of_the_folder(tmp_path, monkeypatch):
    """Its name alone says nothing: another folder called the same is another run."""
    started = []
    wandb = types.SimpleNamespace(init=lambda **options: started.append(options), Error=KeyError)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for folder, stop_at in (("a", 1), ("a", 2), ("b", 1)):
        train(recipe(wandb="scenes"), tmp_path / folder / "run", stop_at=stop_at)
    first, again, other = started
    assert first == again and first["id"] != other["id"] and first["name"] == other["name"] == "run"
    assert first["project"] == "scenes" and first["resume"] == "allow" and first["sync_tensorboard"]

    def refuse(**options):
        raise KeyError("no key\nlog in first")

    wandb.init = refuse
    with pytest.raises(ValueError, match="wandb does not start: 'no key"):
        train(recipe(wandb="scenes"), tmp_path / "c")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="pip install wandb; tensorboard works without"):
        train(recipe(wandb="scenes"), tmp_path / "c")


@pytest.mark.journey
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("recompute", [False, True])
def test_compiled_blocks_learn_the_same(tmp_path, recompute):
    """In a process of its own: shapes are checked here, in the middle of what would be compiled."""
    code = (
        f"import sys; sys.path[:0] = [{str(Path(__file__).parents[1])!r}, {str(Path(__file__).parents[2])!r}]\n"
        "from pathlib import Path\n"
        "import parallel_run as p\n"
        f"made = p.recipe(compile=True, activation_checkpointing={recompute})\n"
        f"p.train(made, Path({str(tmp_path / 'compiled')!r}), stop_at=2)\n"
        "from torch._dynamo.utils import counters\n"
        "layers = len(made.modules[0].module.generator.layers)\n"
        "assert 1 <= counters['stats']['unique_graphs'] < 2 * layers, counters['stats']\n"
    )
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
    train(parallel_run.recipe(), tmp_path / "plain", stop_at=2)
    assert losses(tmp_path / "compiled")[2] == pytest.approx(losses(tmp_path / "plain")[2], rel=1e-4)


def test_rates_warm_up_and_fall():
    config = OptimConfig(warmup=10, decay=0.5)
    factors = [config.factor(s, 100) for s in range(100)]
    assert factors[0] == pytest.approx(0.1) and factors[30] == 1 and factors[-1] == pytest.approx(0.02)
    assert all(a >= b for a, b in zip(factors[10:], factors[11:], strict=False))


@pytest.mark.parametrize("shape", [(32, 96), (96, 32), (48, 48)])
def test_orthogonalise_flattens_the_spectrum(shape):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    before, after = torch.linalg.svdvals(matrix), torch.linalg.svdvals(orthogonalise(matrix))
    assert after.max() < 1.3 and after.median() > 0.5
    assert after.max() / after.median() < before.max() / before.median()


def test_every_parameter_has_one_optimizer():
    model = nn.ModuleDict({"conv": nn.Conv2d(16, 16, 3), "norm": nn.LayerNorm(16), "embed": nn.Embedding(32, 16)})
    optimizers = build_optimizers(model, OptimConfig(muon_lr=0.01))
    owned = [id(p) for o in optimizers for g in o.param_groups for p in g["params"]]
    assert sorted(owned) == sorted(id(p) for p in model.parameters())
    muon = next(o for o in optimizers if isinstance(o, Muon))
    assert [tuple(p.shape) for p in muon.param_groups[0]["params"]] == [(16, 16, 3, 3)]
    assert is_matrix("conv.weight", model["conv"].weight) and not is_matrix("embed.weight", model["embed"].weight)


def heads(count: int) -> MaskGIL:
    width = 16 * count
    return MaskGIL(ModelConfig(codebook_size=8, dim=width, layers=1, heads=count, text_dim=4, ffn=16, qk_norm="rms"))


@pytest.mark.parametrize("muon", [None, 0.01])
def test_gains_of_heads_neither_decay_nor_turn(muon):
    """(16, 16) numbers that each scale one: no matrix, whatever their shape says."""
    model = heads(16)
    gains = {id(p) for name, p in model.named_parameters() if "_norm.weight" in name}
    for optimizer in build_optimizers(model, OptimConfig(muon_lr=muon, weight_decay=0.1)):
        for group in optimizer.param_groups:
            held = gains & {id(p) for p in group["params"]}
            assert not held or (group["weight_decay"] == 0 and not isinstance(optimizer, Muon))


def test_runs_without_decay_keep_the_places_of_their_parameters():
    """What the checkpoints of the bundled models were written with: gains among what has two axes."""
    model = heads(4)
    adamw, muon = build_optimizers(model, OptimConfig(muon_lr=0.01))
    taken = {id(p) for p in muon.param_groups[0]["params"]}
    rest = [p for p in model.parameters() if id(p) not in taken]
    wanted = [[p for p in rest if p.ndim >= 2], [p for p in rest if p.ndim < 2]]
    assert [[id(p) for p in group["params"]] for group in adamw.param_groups] == [[id(p) for p in w] for w in wanted]
    assert any(p is model.layers[0].attention.q_norm.weight for p in wanted[0])


def test_average_follows():
    model = nn.Linear(2, 2)
    average = EMA(model, 0.9)
    with torch.no_grad():
        model.weight.fill_(1.0)
    for step in range(200):
        average.update(model, step)
    assert torch.allclose(average.model.weight, torch.ones(2, 2), atol=1e-3)
