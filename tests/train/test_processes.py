"""Two processes on a CPU (gloo): they move the model as one does, die by SIGKILL; one goes on where they stopped."""

import errno
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import parallel_run
import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from parallel_run import CONFIG, Rows, recipe
from PIL import Image
from torch import nn

from maskgil.models.maskgil import MaskGIL
from train import fsdp
from train.activation_checkpointing import bytes_needed, check_memory, recomputed
from train.ema import local
from train.losses.conditioned import Conditioned
from train.losses.masked_token import MaskedTokenLoss
from train.processes import shutdown_distributed
from train.recipe import SumAndCount, batches_of_process, describe_world_change
from train.run_options import RunOptions
from train.trainer import train


def launch(folder: Path, how: str, *die: str) -> subprocess.CompletedProcess:
    """Two real processes. Without ACCELERATE_USE_CPU accelerate would run each of them alone."""
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         parallel_run.__file__, str(folder), how, *die],
        env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}, text=True, capture_output=True,
    )  # fmt: skip


def gradients(state: dict) -> list[torch.Tensor]:
    """AdamW's first moment after one step is a tenth of the gradient."""
    return [10 * values["exp_avg"] for values in state["optimizers"][0][0]["state"].values()]


def same(a: nn.Module, b: nn.Module, tolerance: float = 1e-5) -> None:
    for (name, x), y in zip(a.named_parameters(), b.parameters(), strict=True):
        assert torch.allclose(local(x), local(y), atol=tolerance), name


def read(folder: Path) -> dict:
    return torch.load(folder / "state.pt", weights_only=True)


def test_accumulation_equals_one_batch(tmp_path):
    """Four batches of 2 pictures, of unequal numbers of masked tokens, move the model as one of 8 does."""
    train(recipe(), tmp_path / "four", stop_at=1)
    train(recipe(rows=8, batches=1), tmp_path / "one", stop_at=1)
    four, one = gradients(read(tmp_path / "four")), gradients(read(tmp_path / "one"))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(four, one, strict=True))
    assert max(float(a.abs().max()) for a in four) > 0.1


@pytest.mark.timeout(900)
def test_two_processes_die_and_one_goes_on(tmp_path, capsys):
    ended = launch(tmp_path / "two", "whole", "die")
    assert ended.returncode != 0 and "SIGKILL" in ended.stderr, ended.stderr[-2000:]
    state = read(tmp_path / "two")
    assert state["step"] == 1 and state["world"] == 2
    train(recipe(), tmp_path / "one", stop_at=1)
    for a, b in zip(gradients(state), gradients(read(tmp_path / "one")), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    capsys.readouterr()
    after, whole = train(recipe(), tmp_path / "two"), train(recipe(), tmp_path / "one")
    assert "2 processes before, 1 now: each does 4 batches a step instead of 2" in capsys.readouterr().out
    same(after, whole)


@pytest.mark.journey
@pytest.mark.timeout(900)
def test_two_processes_hold_half_each(tmp_path, capsys):
    """FSDP2: pieces of model and average, a kill while a checkpoint is put into place, and one process that goes on."""
    ended = launch(tmp_path / "two", "shard", "die")
    assert ended.returncode != 0 and "SIGKILL" in ended.stderr, ended.stderr[-2000:]
    assert [path.name for path in fsdp.checkpoints(tmp_path / "two")] == ["sharded-0000001"]
    assert list((tmp_path / "two").glob("*.partial"))
    ended = launch(tmp_path / "two", "shard")
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "going on from step 1 of 4" in ended.stdout
    for part in ("model", "average"):
        assert ended.stdout.count(f"of 2: {part} holds (24, 16) of (48, 16)") == 2
    exported = []
    try:
        after = train(recipe(shard=True, export=lambda module, folder: exported.append(module)), tmp_path / "two")
        assert "2 processes before, 1 now" in capsys.readouterr().out
        whole = train(recipe(), tmp_path / "one")
        same(after, whole)
        same(exported[0], whole)
        with pytest.raises(ValueError, match="begun with --shard"):
            train(recipe(), tmp_path / "two")
    finally:
        shutdown_distributed()
    with pytest.raises(ValueError, match="begun without --shard"):
        train(recipe(shard=True), tmp_path / "one")
    shutdown_distributed()
    assert not dist.is_initialized(), "what is left of a group at exit can abort its process"


def test_a_sharded_run_keeps_to_its_model_and_its_data(tmp_path):
    """Either is one line, though torch's own exception is none that anybody catches."""
    one = {"tokenizer": "abc"}
    try:
        train(recipe(shard=True, provenance=one), tmp_path, stop_at=1)
        train(recipe(shard=True, provenance=one), tmp_path, stop_at=2)
        with pytest.raises(ValueError, match="begun with the tokenizer abc, and this command's data are of def"):
            train(recipe(shard=True, provenance={"tokenizer": "def"}), tmp_path)
        about = fsdp.checkpoints(tmp_path)[-1] / fsdp.ABOUT
        about.write_text('{"step": 2, "world": 1}')  # as it was written before
        train(recipe(shard=True, provenance=one), tmp_path, stop_at=3)
        for change in (dict(ffn=48), dict(layers=3), dict(layers=1)):
            other = recipe(shard=True)
            other.modules[0].module.generator = MaskGIL(replace(CONFIG, **change))
            with pytest.raises(ValueError, match="the checkpoint .*is of another recipe.*: .+") as error:
                train(other, tmp_path)
            assert "\n" not in str(error.value)
    finally:
        shutdown_distributed()


def test_a_full_disk_leaves_the_sharded_checkpoint_before(tmp_path, monkeypatch):
    def full(state, checkpoint_id, process_group):
        checkpoint_id.mkdir()
        (checkpoint_id / "a piece").write_bytes(b"0")
        raise OSError(errno.ENOSPC, "No space left on device")

    try:
        train(recipe(shard=True), tmp_path, stop_at=1)
        with monkeypatch.context() as patch:
            patch.setattr(fsdp.dcp, "async_save", full)
            with pytest.raises(ValueError, match="could not write .*No space left.*the last checkpoint is untouched"):
                train(recipe(shard=True), tmp_path, stop_at=2)
        assert [path.name for path in tmp_path.glob("sharded-*")] == ["sharded-0000001"]
        train(recipe(shard=True), tmp_path, stop_at=2)
        assert [path.name for path in tmp_path.glob("sharded-*")] == ["sharded-0000002"]
    finally:
        shutdown_distributed()


def test_a_sharded_checkpoint_is_written_while_the_run_goes_on(tmp_path, monkeypatch):
    """The next steps do not wait for the disk, and change nothing of what is written."""
    release, taken, save = threading.Event(), [], fsdp.dcp.async_save

    class Slow(fsdp.ShardedSaver):
        @property
        def written(self):
            return super().written and release.is_set()

    def seen(state, **rest):
        taken.append(float(next(iter(state["module"].values())).to_local().double().sum()))
        return save(state, **rest)

    def loss(modules, batch, generator, step):
        if step == 2:
            assert not list(tmp_path.glob("sharded-0000001")), "step 3 began before the checkpoint was in place"
            release.set()
        return player.loss(modules, batch, generator, step)

    made = recipe(shard=True, save_every=100)
    player = made.modules[0]
    monkeypatch.setattr(fsdp, "ShardedSaver", Slow)
    monkeypatch.setattr(fsdp.dcp, "async_save", seen)
    try:
        first = replace(made, save_every=1, modules=(replace(player, loss=loss),))
        monkeypatch.setattr(Slow, "begin", once(Slow.begin))
        train(first, tmp_path, stop_at=3)
        assert [path.name for path in fsdp.checkpoints(tmp_path)] == ["sharded-0000001"] and len(taken) == 1
        monkeypatch.undo()
        again, straight = train(recipe(shard=True), tmp_path), train(recipe(shard=True), tmp_path / "whole")
        same(again, straight)
    finally:
        shutdown_distributed()


def once(method):
    """A method that does nothing from its second call on."""
    calls = []

    def call(self, *arguments):
        if not calls:
            calls.append(1)
            method(self, *arguments)

    return call


def test_the_last_sharded_checkpoints_are_kept_and_the_best(tmp_path):
    validation = {"valid_at": parallel_run.Rows(2), "valid_every": 1, "valid_batches": 2}
    exported = []
    try:
        made = recipe(shard=True, export=lambda model, folder: exported.append(folder.name), **validation)
        train(made, tmp_path, options=RunOptions(keep=2))
        assert [path.name for path in fsdp.checkpoints(tmp_path)] == ["sharded-0000003", "sharded-0000004"]
        assert (tmp_path / "best" / fsdp.ABOUT).is_file() and exported[0] == "export"
    finally:
        shutdown_distributed()


def test_a_broken_sharded_checkpoint_is_passed_over(tmp_path, capsys):
    try:
        train(recipe(shard=True), tmp_path, stop_at=3, options=RunOptions(keep=2))
        (piece,) = (tmp_path / "sharded-0000003").glob("*.distcp")
        piece.write_bytes(piece.read_bytes()[:100])
        again = train(recipe(shard=True), tmp_path, options=RunOptions(keep=2))
        said = capsys.readouterr().out
        assert "sharded-0000003 is broken and left aside" in said and "going on from step 2 of 4" in said
        same(again, train(recipe(shard=True), tmp_path / "whole"))
    finally:
        shutdown_distributed()


def test_a_model_that_is_cut_never_lies_whole_on_the_device(tmp_path, monkeypatch):
    """What is too large for one GPU has to get there, too: torch moves each block as it cuts it."""
    made = recipe(shard=True)

    def refuse(*device):
        raise AssertionError("moved whole")

    made.modules[0].module.to = refuse
    try:
        train(made, tmp_path, stop_at=1)
    finally:
        shutdown_distributed()
    model = Conditioned(MaskGIL(CONFIG))
    monkeypatch.setattr(nn.Parameter, "__deepcopy__", refuse)
    shape = fsdp.skeleton(model).state_dict()
    assert all(tensor.is_meta for tensor in shape.values())
    assert {k: (v.shape, v.dtype) for k, v in shape.items()} == {
        k: (v.shape, v.dtype) for k, v in model.state_dict().items()
    }


def test_a_sharded_model_is_drawn_where_it_is_trained(tmp_path, monkeypatch):
    """It is gathered on the CPU, where a large one would draw longer than the other processes wait."""
    moves, gathered = [], fsdp.whole

    def watched(module: nn.Module, shape: nn.Module) -> nn.Module:
        full = gathered(module, shape)
        full.to = lambda device: moves.append(device) or full
        return full

    def sheet(model: nn.Module, path: Path) -> None:
        assert len(moves) == 1, "drawn before it was moved"
        Image.new("RGB", (2, 2)).save(path)

    monkeypatch.setattr(fsdp, "whole", watched)
    try:
        train(recipe(shard=True, sample=sheet), tmp_path, stop_at=1)
    finally:
        shutdown_distributed()
    assert moves == [Accelerator().device] and (tmp_path / "samples" / "0000001.png").is_file()


def test_processes_that_do_not_know_of_each_other_are_refused(tmp_path, monkeypatch):
    """What torchrun makes of a CPU that nobody named: each would train alone and write over the other."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="2 processes were started.*ACCELERATE_USE_CPU"):
        train(recipe(), tmp_path, stop_at=1)
    assert not (tmp_path / "state.pt").exists()


def test_batches_that_cannot_be_shared_are_refused():
    with pytest.raises(ValueError, match="4 batches a step cannot be shared by 3 processes"):
        batches_of_process(recipe(), 3)
    assert batches_of_process(recipe(), 2) == 2 and "the masks stay the same" in describe_world_change(recipe(), 2, 4)


def test_masks_are_functions_of_the_picture():
    """The loss of two halves, summed, is the loss of the whole, whatever the split."""
    torch.manual_seed(0)
    model = Conditioned(MaskGIL(CONFIG)).eval()
    nn.init.normal_(model.generator.output.weight)
    objective, generator = MaskedTokenLoss(), torch.Generator()
    whole, _ = objective([model], Rows(8)(0), generator, 0)
    parts = [objective([model], Rows(2)(i), generator, 5)[0] for i in range(4)]
    assert isinstance(whole, SumAndCount) and sum(p.count for p in parts) == whole.count
    assert torch.allclose(sum(p.total for p in parts), whole.total, rtol=1e-5)


def test_labels_drive_too():
    model = Conditioned(MaskGIL(replace(CONFIG, classes=5, text_dim=None)))
    batch = {k: v for k, v in Rows(4)(0).items() if k not in ("states", "mask")} | {"labels": torch.arange(4)}
    part, metrics = MaskedTokenLoss(everywhere=True)([model], batch, torch.Generator(), 0)
    assert part.count == 48 and torch.isfinite(part.total) and 0 <= metrics["accuracy"] <= 1


def test_a_model_that_cannot_drop_its_text_is_trained_without_dropping_it():
    model = Conditioned(MaskGIL(replace(CONFIG, null="none")))
    part, _ = MaskedTokenLoss(caption_dropout=0)([model], Rows(2)(0), torch.Generator(), 0)
    assert torch.isfinite(part.total)
    with pytest.raises(ValueError, match="cannot drop its text"):
        MaskedTokenLoss()([model], Rows(2)(0), torch.Generator(), 0)


def test_recomputed_activations_change_nothing():
    found = []
    for again in (False, True):
        torch.manual_seed(0)
        model = Conditioned(MaskGIL(CONFIG))
        nn.init.normal_(model.generator.output.weight)
        if again:
            recomputed(model)
        part, _ = MaskedTokenLoss()([model], Rows(2)(0), torch.Generator(), 0)
        part.total.backward()
        found.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_too_small_a_gpu_is_told_what_would_do():
    model = Conditioned(MaskGIL(CONFIG))
    count = sum(p.numel() for p in model.parameters())
    assert bytes_needed([model]) == 20 * count and bytes_needed([model], 4) == 5 * count
    check_memory("tiny", [model], 1, 20 * count)
    with pytest.raises(ValueError, match="--shard on 2 GPUs or more"):
        check_memory("tiny", [model], 1, 19 * count)


def test_frozen_weights_are_not_stored(tmp_path):
    made = recipe()
    made.modules[0].module.generator.tok_embeddings.requires_grad_(False)
    train(made, tmp_path, stop_at=1)
    held = read(tmp_path)
    assert "generator.tok_embeddings.weight" not in held["modules"][0].keys() | held["average"].keys()
    again = recipe()
    again.modules[0].module.generator.tok_embeddings.requires_grad_(False)
    train(again, tmp_path)
    with pytest.raises(ValueError, match="of another recipe"):
        train(recipe(), tmp_path)


def test_the_average_is_validated(tmp_path):
    train(recipe(valid_at=Rows(2), valid_every=2, valid_batches=3), tmp_path)
    assert '"valid"' in (tmp_path / "log.jsonl").read_text()
