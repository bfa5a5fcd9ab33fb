"""The command for scenes' tokens: what is wrong is one line, and finished shards stay."""

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import maskgil
from safetensors import SafetensorError

from maskgil.tokenizers.vq import VQConfig, VQModel
from train.data import cache_files, scene_cache
from train.scenes.sprites import Sprites


@pytest.mark.parametrize(
    "arguments, says",
    [
        ([], "Missing from maskgil data scenes: --tokenizer STR .* --out STR"),
        (["--out=x"], "Missing from maskgil data scenes: --tokenizer"),
        (["--tokenizer=x", "--out=y", "--kind=pairde"], "did you mean paired"),
        (["--tokenizer=x", "--out=y", "--size=64"], "unknown: --size=64"),
        (["--tokenizer=x", "--out=y", "--total=many"], "Error parsing --total"),
        (["--tokenizer=x", "--out=y", "--total=0"], "total=0: give 1 or more"),
        (["tokenizer=x", "out=y", "total=4"], "written --name value: .* --tokenizer x --out y --total 4"),
    ],
)
def test_what_the_command_cannot_use_is_one_line(arguments, says):
    with pytest.raises(ValueError, match=says) as error:
        maskgil("data", "scenes", *arguments)
    assert "\n" not in str(error.value)


def test_a_full_disk_keeps_finished_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(scene_cache, "render", lambda scene, sprites, rng: np.zeros((32, 32, 3), np.uint8))
    save, written = cache_files.save_file, []

    def filling(tensors: dict, path: Path, metadata: dict | None = None) -> None:
        if len(written) == 1:
            path.write_bytes(b"half")
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        written.append(Path(path).name.removesuffix(".partial"))
        save(tensors, path, metadata)

    monkeypatch.setattr(cache_files, "save_file", filling)
    torch.manual_seed(0)
    config = VQConfig(codebook_size=8, codebook_dim=4, channels=(32,), res_blocks=1, z_channels=32, patch=16)
    tokenizer, sprites = VQModel(config).eval().requires_grad_(False), Sprites()
    with pytest.raises(ValueError, match="No space left .* finished files are kept: free space") as error:
        scene_cache.write_scenes(tokenizer, sprites, tmp_path, 2, "a tokenizer", shard=1)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["cache.json", *written])


def test_a_small_total_is_what_is_encoded_and_a_larger_one_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(scene_cache, "render", lambda scene, sprites, rng: np.zeros((32, 32, 3), np.uint8))
    config = VQConfig(codebook_size=8, codebook_dim=4, channels=(32,), res_blocks=1, z_channels=32, patch=16)
    tokenizer = VQModel(config).eval().requires_grad_(False)

    def rows(total: int) -> dict[tuple[int, int], list[int]]:
        scene_cache.write_scenes(tokenizer, Sprites(), tmp_path, total, "a tokenizer")
        tables = scene_cache.open_codes(tmp_path).tables
        return {size: table["numbers"].tolist() for size, table in tables.items()}

    few = rows(64)
    assert {size: len(n) for size, n in few.items()} == {(128, 128): 45, (96, 96): 6, (160, 96): 6, (96, 160): 6}
    more = rows(200)
    assert sum(map(len, more.values())) == 200
    assert all(more[size][: len(n)] == n for size, n in few.items())
    assert rows(64) == more, "what is there already is not encoded again"


def cached(folder: Path, tokenizer: str, numbers: list[int]) -> Path:
    folder.mkdir()
    (folder / "cache.json").write_text(f'{{"tokenizer": "{tokenizer}", "corpus": "{scene_cache.corpus()}"}}')
    tensors = {"tokens": torch.zeros(len(numbers), 64, dtype=torch.uint16), "numbers": torch.tensor(numbers)}
    cache_files.write_shard(tensors, folder / "128x128-0000.safetensors")
    return folder


def test_folders_of_one_tokenizer_are_mixed(tmp_path):
    paired = scene_cache.KINDS["paired"]
    first, second = cached(tmp_path / "a", "this", [1, 2]), cached(tmp_path / "b", "this", [paired])
    tables = scene_cache.open_codes(f"{first},{second}").tables
    assert tables[128, 128]["numbers"].tolist() == [1, 2, paired]
    assert scene_cache.tokenizer_of(f"{first},{second}") == "this"
    other = cached(tmp_path / "c", "that", [3])
    with pytest.raises(ValueError, match="different tokenizers cannot be mixed: .*a by this, .*c by that"):
        scene_cache.open_codes(f"{first},{other}")
    with pytest.raises(ValueError, match="nowhere holds no cached scenes"):
        scene_cache.open_codes(f"{first},{tmp_path / 'nowhere'}")


def test_a_cache_is_of_one_kind_of_scenes_and_of_one_kind_of_drawings(tmp_path):
    config = VQConfig(codebook_size=8, codebook_dim=4, channels=(32,), res_blocks=1, z_channels=32, patch=16)
    tokenizer, (fluent, other) = VQModel(config).eval().requires_grad_(False), (tmp_path / "fluent", tmp_path / "other")
    for folder in (fluent, other):
        (folder / "3d").mkdir(parents=True)
    (other / "3d" / "ant.webp").write_bytes(b"an ant")
    out = tmp_path / "cache"
    scene_cache.write_scenes(tokenizer, Sprites(), out, 1, "a tokenizer", shard=1)
    note = (out / "cache.json").read_text()
    scene_cache.write_scenes(tokenizer, Sprites(), out, 1, "a tokenizer", shard=1)
    with pytest.raises(ValueError, match="made with another kind of scenes"):
        scene_cache.write_scenes(tokenizer, Sprites(), out, 1, "a tokenizer", scene_cache.KINDS["paired"], shard=1)
    with pytest.raises(ValueError, match=r"made with other drawings \(--sprites\)"):
        scene_cache.write_scenes(tokenizer, Sprites(fluent), out, 1, "a tokenizer", shard=1)
    with pytest.raises(ValueError, match="give the --sprites that it was made with"):
        scene_cache.check_drawings([out], Sprites(other))
    scene_cache.check_drawings([out], Sprites())
    assert (out / "cache.json").read_text() == note
    assert len({Sprites().identity(), Sprites(fluent).identity(), Sprites(other).identity()}) == 3


def test_a_number_says_which_kind_of_scene():
    assert scene_cache.scene_number(5, 128, 128)[0] == scene_cache.scene_number(5, 128, 128)[0]
    assert any(len(scene_cache.scene_number(scene_cache.CROWDED + n, 128, 128)[0].items) > 4 for n in range(8))
    kinds = [scene_cache.scene_number(scene_cache.KINDS["paired"] + n, 128, 128)[0] for n in range(8)]
    assert all(len(scene.groups) == 2 and any(scene.colours.values()) for scene in kinds)


def test_scenes_of_another_corpus_are_refused(tmp_path):
    """Their captions would be said of tokens that show something else."""
    (tmp_path / "cache.json").write_text('{"tokenizer": "a tokenizer", "corpus": "of last year"}')
    config = VQConfig(codebook_size=8, codebook_dim=4, channels=(32,), res_blocks=1, z_channels=32, patch=16)
    save = {"tokens": torch.zeros(2, 64, dtype=torch.uint16), "numbers": torch.arange(2)}
    cache_files.write_shard(save, tmp_path / "128x128-0000.safetensors")
    for use in (scene_cache.open_codes, scene_cache.note_of):
        with pytest.raises(ValueError, match="another corpus .* make it anew"):
            use(tmp_path)
    with pytest.raises(ValueError, match="another corpus"):
        scene_cache.write_scenes(VQModel(config), Sprites(), tmp_path, 2, "a tokenizer")
    (tmp_path / "cache.json").write_text(f'{{"tokenizer": "a tokenizer", "corpus": "{scene_cache.corpus()}"}}')
    assert len(scene_cache.open_codes(tmp_path).tables[128, 128]["numbers"]) == 2
    (tmp_path / "cache.json").unlink()
    with pytest.raises(ValueError, match="is no cache of scenes"):
        scene_cache.note_of(tmp_path)
