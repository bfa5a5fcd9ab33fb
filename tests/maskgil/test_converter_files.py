"""Where the weights lie in released files: averaged ones first, under the names of the model itself."""

import torch

from maskgil.converters import CONVERTERS, read_released_file, without_wrappers


def test_a_tokenizers_averaged_weights_come_first(tmp_path):
    """As the published demo of LlamaGen reads them."""
    plain, average = {"weight": torch.zeros(2)}, {"weight": torch.ones(2)}
    for held in ({"model": plain, "ema": average}, {"ema": average}):
        torch.save(held, tmp_path / "vq.pt")
        assert torch.equal(
            read_released_file(tmp_path / "vq.pt", CONVERTERS["llamagen-vq"].keys)["weight"], average["weight"]
        )
    torch.save({"model": plain}, tmp_path / "vq.pt")
    assert torch.equal(
        read_released_file(tmp_path / "vq.pt", CONVERTERS["llamagen-vq"].keys)["weight"], plain["weight"]
    )


def test_names_of_wrapped_modules_are_those_of_the_model():
    one = torch.ones(1)
    for prefix in ("", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."):
        assert without_wrappers({f"{prefix}a.weight": one, f"{prefix}b": one}) == {"a.weight": one, "b": one}
    mixed = {"module.a": one, "b": one}
    assert without_wrappers(mixed) == mixed
