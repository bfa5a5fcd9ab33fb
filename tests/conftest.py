"""Fixtures: tiny models. Shapes in signatures are enforced here (jaxtyping with beartype); production pays nothing."""

import logging
import os
from collections.abc import Iterator

from jaxtyping import install_import_hook

os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray reads it when it is imported: loopback alone

# Before anything imports the packages: modules loaded earlier would go unchecked.
install_import_hook(["maskgil", "text_encoder", "speech", "train", "app"], "typechecker.checked")

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from maskgil.condition import Condition  # noqa: E402
from maskgil.models.config import ModelConfig  # noqa: E402
from maskgil.models.maskgil import MaskGIL  # noqa: E402

torch.set_num_threads(1)

# The suite says the same of the same code each time, on a machine that is busy, too;
# `HYPOTHESIS_PROFILE=explore make test` looks for new examples.
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("explore", max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

TINY = ModelConfig(
    codebook_size=32, dim=32, layers=2, heads=2, ffn=64, text_dim=12, text_length=8, qk_norm="rms", dropout=0.0
)


def make_tiny(config: ModelConfig = TINY, seed: int = 0) -> MaskGIL:
    """A tiny model with a head that is not zero, so that its logits say something."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MaskGIL(config).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return model.requires_grad_(False)


def make_condition(lengths: tuple[int, ...] = (3, 5), width: int = 12, seed: int = 0) -> Condition:
    """Random texts of the given lengths."""
    states = torch.randn(len(lengths), max(lengths), width, generator=torch.Generator().manual_seed(seed))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return Condition(states, mask)


@pytest.fixture(autouse=True)
def logging_stays_on() -> Iterator[None]:
    """A command silences logging for its process, which is that of every test."""
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def tiny() -> MaskGIL:
    return make_tiny()


@pytest.fixture
def condition() -> Condition:
    return make_condition()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Tests draw the same random inputs every time."""
    torch.manual_seed(0)
