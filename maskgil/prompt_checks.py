"""Checks of what a person gives a model: prompts and seeds."""

from collections.abc import Sequence

MAX_PROMPT = 1000  # characters
MAX_SEED = 2**63 - 1


def validate_prompts(prompts: Sequence[str], name: str) -> list[str]:
    """The prompts as a list. ValueError for none, an empty one, and one of more than MAX_PROMPT characters; `name` is
    what the message calls them."""
    if isinstance(prompts, str) or not prompts:
        raise ValueError(f"give a list of {name}s, at least one")
    for prompt in prompts:
        if not prompt.strip():
            raise ValueError(f"the {name} is empty: say what to draw, for example 'two cats on the beach'")
        if len(prompt) > MAX_PROMPT:
            raise ValueError(f"the {name} has {len(prompt):,} characters, at most {MAX_PROMPT:,} are read: shorten it")
    return list(prompts)


def validate_seeds(seeds: Sequence[int]) -> list[int]:
    """The seeds as a list. ValueError for one that is no whole number from 0 to MAX_SEED."""
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seed {seed!r}: give a whole number from 0 to {MAX_SEED}")
    return list(seeds)
