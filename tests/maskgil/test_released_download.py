"""Fetching released models: whole, resumed, at one revision, never onto a full disk, and refused in one line."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
from hub_stand_in import REVISION, HubStandIn

from app.core import registry
from maskgil import checkpoint
from maskgil.released import catalog, download
from maskgil.released.download import FileOnHub

NAME = "amused/amused-256"
NOBODY = "http://127.0.0.1:9"  # the discard port: refused at once


@pytest.fixture
def repository(tmp_path) -> Path:
    folder = tmp_path / "repository"
    configs = {
        "transformer/config.json": {"num_hidden_layers": 2, "sample_size": 16},
        "vqvae/config.json": {"block_out_channels": [1, 2, 3, 4, 5]},
        "text_encoder/config.json": {},
        "tokenizer/vocab.json": {},
    }
    for name, values in configs.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(values))
    for name in ("vqvae/diffusion_pytorch_model", "text_encoder/model", "text_encoder/model.fp16"):
        (folder / f"{name}.safetensors").write_bytes(b"weights of " + name.encode())
    big = bytes(range(256)) * (12 * 2**20 // 256)  # longer than what the hub's client reads at once
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(big)
    (folder / "training_state.bin").write_bytes(b"nobody asked for it")
    return folder


@pytest.fixture
def hub(repository, tmp_path, monkeypatch):
    monkeypatch.setenv(download.FOLDER, str(tmp_path / "models"))
    hub = HubStandIn({NAME: repository})
    yield hub
    hub.close()


def test_a_model_is_fetched_whole_and_found_by_its_name(hub, repository):
    folder = download.fetch(NAME, hub.endpoint)
    fetched = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and ".cache" not in p.parts}
    wanted = {str(p.relative_to(repository)) for p in repository.rglob("*") if p.is_file()}
    assert fetched - {"release.json"} == wanted - {"training_state.bin", "text_encoder/model.fp16.safetensors"}
    weights = "transformer/diffusion_pytorch_model.safetensors"
    assert (folder / weights).read_bytes() == (repository / weights).read_bytes()
    assert download.read_record(folder)["revisions"] == {NAME: REVISION}
    model = registry.find(NAME)
    assert (model.sizes, model.sampler, model.reads) == (((256, 256),), "amused", "free text")
    assert registry.fetched() == [model] and checkpoint.resolve(NAME) == folder


def test_what_is_here_is_not_asked_for_again(hub):
    folder = download.fetch(NAME, hub.endpoint)
    hub.requests.clear()
    assert download.fetch(NAME, hub.endpoint) == folder and hub.requests == []


def test_a_file_that_was_cut_off_goes_on_where_it_stopped(hub, repository):
    hub.cut = 11 * 2**20
    folder = download.fetch(NAME, hub.endpoint)
    weights = "transformer/diffusion_pytorch_model.safetensors"
    ranges = [wanted for method, path, wanted in hub.requests if method == "GET" and path.endswith(weights)]
    assert ranges[0] is None and ranges[1].startswith("bytes=") and ranges[1] != "bytes=0-"
    assert (folder / weights).read_bytes() == (repository / weights).read_bytes()


def test_a_full_disk_is_noticed_before_anything_is_fetched(hub, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 5 * 10**8, 505 * 10**6))
    with pytest.raises(ValueError, match=r"needs 0\.0 GB and 0\.5 GB to spare, .* has 0\.5 GB free: make room"):
        download.fetch(NAME, hub.endpoint)
    assert not download.is_begun(catalog.released_model(NAME))
    assert all("resolve" not in path for _, path, _ in hub.requests)


def test_without_a_network_one_line_says_what_works(hub):
    with pytest.raises(ValueError, match="could not be fetched from Hugging Face") as refused:
        download.fetch("amused/amused-512", NOBODY)
    assert "\n" not in str(refused.value) and "need no network" in str(refused.value)
    download.fetch(NAME, hub.endpoint)
    assert registry.find(NAME).name == NAME  # what is here needs none


def test_what_is_not_here_says_how_to_get_it(hub):
    for ask in (registry.find, checkpoint.resolve):
        with pytest.raises(ValueError, match=f"{NAME} is not on this machine: `maskgil models get {NAME}` fetches it"):
            ask(NAME)
    with pytest.raises(ValueError, match="did you mean amused/amused-256"):
        download.fetch("amused/amused256", hub.endpoint)


def test_a_model_is_removed_and_nothing_else(hub, tmp_path):
    folder = download.fetch(NAME, hub.endpoint)
    other = folder.parent / "mine"
    other.mkdir()
    assert download.remove(NAME) > 12 * 2**20
    assert not folder.exists() and other.is_dir()
    with pytest.raises(ValueError, match="nothing to remove"):
        download.remove(NAME)


def test_half_a_model_is_no_model(hub, monkeypatch, tmp_path):
    import huggingface_hub

    def stops(*_, **__):
        raise ConnectionError("the line went dead")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", stops)
    with pytest.raises(ValueError, match="the line went dead.*goes on where it stopped"):
        download.fetch(NAME, hub.endpoint)
    assert registry.fetched() == []
    with pytest.raises(ValueError, match="was not fetched whole"):
        registry.find(NAME)
    monkeypatch.undo()
    monkeypatch.setenv(download.FOLDER, str(tmp_path / "models"))
    hub.requests.clear()
    download.fetch(NAME, hub.endpoint)
    assert hub.requests[0][1] == f"/api/models/{NAME}/revision/{REVISION}"  # the one of the first call


def test_a_model_whose_files_were_damaged_is_fetched_again(hub):
    """One that is gone, or weights that are cut, are no whole model; what is fetched again is only that."""
    folder = download.fetch(NAME, hub.endpoint)
    weights = "text_encoder/model.safetensors"
    for damage in (lambda path: path.unlink(), lambda path: path.write_bytes(b"cut")):
        damage(folder / weights)
        assert registry.fetched() == []
        with pytest.raises(ValueError, match=f"was not fetched whole: `maskgil models get {NAME}`"):
            registry.find(NAME)
        hub.requests.clear()
        download.fetch(NAME, hub.endpoint)
        assert (folder / weights).read_bytes() == b"weights of text_encoder/model"
        got = {path.rpartition("/")[2] for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path}
        assert got <= {"model.safetensors"}
    (folder / "transformer" / "config.json").write_text(json.dumps({"num_hidden_layers": 2, "sample_size": 32}))
    assert registry.find(NAME).sizes == ((512, 512),), "a config may be edited"


def test_two_processes_fetch_a_model_once(hub, tmp_path):
    """The second waits for the first and finds the model there; a removal meanwhile is refused."""
    hub.delay = 0.05
    command = [sys.executable, "-c", f"from maskgil.released import download; print(download.fetch({NAME!r}))"]
    environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert len({out for out, _ in said}) == 1
    weights = "transformer/diffusion_pytorch_model.safetensors"
    assert sum(method == "GET" and path.endswith(weights) for method, path, _ in hub.requests) == 1
    with download.alone(catalog.released_model(NAME), wait=False):
        removal = [sys.executable, "-c", f"from maskgil.released import download; download.remove({NAME!r})"]
        refused = subprocess.run(removal, env=environment, capture_output=True, text=True, timeout=120)
    assert "is being fetched by another process" in refused.stderr


def test_a_disk_that_fills_up_is_said_and_the_rest_comes_later(hub, monkeypatch):
    import huggingface_hub

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(ValueError, match="could not be written to .*No space left on device"):
        download.fetch(NAME, hub.endpoint)
    monkeypatch.undo()


def test_files_that_are_converted_need_their_room_twice(monkeypatch, tmp_path):
    monkeypatch.setenv(download.FOLDER, str(tmp_path))
    model = catalog.released_model("LlamaGen/t2i-XL-256")
    monkeypatch.setattr(download, "list_files", lambda repository, *_: ("sha", [FileOnHub("a.pt", 10**9)]))
    monkeypatch.setattr(download, "free_disk", lambda _: int(3.4e9))
    with pytest.raises(ValueError, match=r"needs 3.0 GB and 0.5 GB to spare, the disk of .* has 3.4 GB free"):
        download.fetch(model.name)


@pytest.mark.parametrize("name", ["tokenizer/../../../../precious.json", "tokenizer/..\\precious.json"])
def test_a_file_outside_the_folder_is_refused(hub, monkeypatch, tmp_path, name):
    """A hub that lists one gets nothing written, and nothing removed."""
    precious = tmp_path / "precious.json"
    precious.write_text("precious")
    siblings = [{"rfilename": name, "size": 3}, {"rfilename": "transformer/config.json", "size": 3}]
    answer = {"id": NAME, "sha": REVISION, "siblings": siblings}
    monkeypatch.setattr(hub, "listing", lambda repo, tree: (200, answer))
    with pytest.raises(ValueError, match="lists a file outside its folder"):
        download.fetch(NAME, hub.endpoint)
    assert precious.read_text() == "precious" and not download.is_begun(catalog.released_model(NAME))


def test_what_is_no_hub_is_named(hub, monkeypatch):
    """The login page of a network answers every address; HF_ENDPOINT may be misspelled, and an empty one is none."""
    monkeypatch.setattr(hub, "listing", lambda repo, tree: (200, ["please log in"]))
    with pytest.raises(ValueError, match="no Hugging Face hub, perhaps a login page.*need no network"):
        download.fetch(NAME, hub.endpoint)
    monkeypatch.setenv("HF_ENDPOINT", "hub.example")
    with pytest.raises(ValueError, match="HF_ENDPOINT is 'hub.example': give an address such as https"):
        download.fetch(NAME)
    monkeypatch.setenv("HF_ENDPOINT", "")
    assert download.hub_address() == download.HUB


@pytest.mark.parametrize("record", ["[]", "[" * 10**5, '{"complete": true, "files": {"gone": 1}, "revisions": [1]}',
                                    '{"revisions": {"amused/amused-256": 5}}'], ids=range(4))  # fmt: skip
def test_a_damaged_record_is_written_anew(hub, record):
    folder = download.fetch(NAME, hub.endpoint)
    (folder / download.RECORD).write_text(record)
    assert not download.is_complete(catalog.released_model(NAME))
    assert download.fetch(NAME, hub.endpoint) == folder and download.is_complete(catalog.released_model(NAME))


def test_a_link_to_a_folder_elsewhere_is_not_removed(hub, tmp_path):
    folder = download.fetch(NAME, hub.endpoint)
    elsewhere = Path(shutil.move(folder, tmp_path / "elsewhere"))
    folder.symlink_to(elsewhere)
    assert registry.find(NAME).name == NAME
    with pytest.raises(ValueError, match="is a link to .*remove the link"):
        download.remove(NAME)
    assert download.is_complete(catalog.released_model(NAME))


def test_a_process_that_is_killed_leaves_what_the_next_one_goes_on_with(hub, repository):
    hub.delay = 0.1
    command = [sys.executable, "-c", f"from maskgil.released import download; download.fetch({NAME!r})"]
    environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while process.poll() is None and not any("/resolve/" in path for _, path, _ in hub.requests):
        time.sleep(0.01)
    process.kill()
    process.wait()
    hub.delay = 0.0
    model = catalog.released_model(NAME)
    assert download.is_begun(model) and not download.is_complete(model)
    folder = download.fetch(NAME, hub.endpoint)
    weights = "transformer/diffusion_pytorch_model.safetensors"
    assert (folder / weights).read_bytes() == (repository / weights).read_bytes()


def test_files_that_cannot_be_converted_say_how_to_get_others(hub, monkeypatch, tmp_path):
    """The same files would fail again: they are removed by hand."""
    for repo, names in (("peizesun/llamagen_t2i", ("t2i_XL_stage1_256.pt", "vq_ds16_t2i.pt")),
                        ("google/flan-t5-xl", ("config.json",))):  # fmt: skip
        hub.repositories[repo] = tmp_path / repo
        hub.repositories[repo].mkdir(parents=True)
        for name in names:
            (hub.repositories[repo] / name).write_bytes(b"no torch file")
    with pytest.raises(ValueError, match="not a torch file.*`maskgil models rm LlamaGen/t2i-XL-256` removes"):
        download.fetch("LlamaGen/t2i-XL-256", hub.endpoint)
