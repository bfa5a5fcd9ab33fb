"""Words that gave way to the field's terms, and the few files where each may still stand.

renamed: twin -> AR model, hole -> masked token, doubt -> remask, wish -> request, ear -> recognizer, easel -> canvas,
lane -> batch, house -> services, muddle -> corruption, lent and lender -> shared and owner, repaint -> remask,
recogniser -> recognizer.
"""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = (".py", ".js", ".css", ".html", ".md")
LEGACY = "names that older files, pictures and programs have, and what they are called now"
ENGLISH = "an everyday word of prompts or a thing that is drawn, not a term of the code"

# {word: {file or folder: why the word stands there}}; plurals and parts of identifiers count.
WORDS: dict[str, dict[str, str]] = {
    "twin": {
        "experiments/paper_findings/arms.py": LEGACY,
        "train/recipes/scenes.py": LEGACY,
        "train/eval/ar_prefix_scores.py": LEGACY,
        "train/export.py": LEGACY,
        "tests/test_legacy.py": LEGACY,
        "train/eval/sample_images.py": LEGACY,
        "text_encoder/prompt_reader/english_phrases.py": ENGLISH,
    },
    "hole": {"tests/test_golden.py": LEGACY},
    "doubt": {"maskgil/sampling_flags.py": LEGACY, "tests/test_golden.py": LEGACY},
    "wish": {"tests/test_legacy.py": LEGACY},
    "ear": {
        "app/core/paths.py": LEGACY,
        "app/commands/listen_command.py": LEGACY,
        "app/commands/ui_command.py": LEGACY,
        "docs/model-folder.md": LEGACY,
        "tests/test_legacy.py": LEGACY,
    },
    "easel": {},
    "lane": {},
    "house": {
        "docs/prompts.md": ENGLISH,
        "docs/results.md": ENGLISH,
        "tests/speech/test_spoken_commands.py": ENGLISH,
        "tests/text_encoder/test_reading_rules.py": ENGLISH,
        "tests/app": ENGLISH,
        "tests/train": ENGLISH,
        "text_encoder/prompt_reader": ENGLISH,
        "train": ENGLISH,
    },
    "muddle": {"train/recipes/shared_options.py": LEGACY, "tests/test_legacy.py": LEGACY},
    "muddled": {},
    "lent": {},
    "lender": {},
    "absorbed": {"tests/test_legacy.py": LEGACY},
    "observer": {
        "train/losses/perceptual.py": "the kind of saved networks",
        "tests/train/test_reconstruction.py": "the kind of saved networks",
        "maskgil/config_file.py": LEGACY,
        "train/recipes": LEGACY,
        "tests/test_legacy.py": LEGACY,
        "docs/training-scenes.md": LEGACY,
        "app/studio/studio_client.js": "a class of the browser, IntersectionObserver",
    },
    "repaint": {},
    "recogniser": {"tests/test_legacy.py": LEGACY},
}
EVERYWHERE = {
    "CHANGELOG.md": "what changed",
    "tests/test_names.py": "the list of names",
    "tests/test_words.py": "this list",
}


def files() -> list[str]:
    """Text files of the repository, without the cards of the weights, which are of their training's time."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    return [name for name in listed if name.endswith(SUFFIXES) and not name.startswith(("weights/", "tests/fixtures/"))]


def words_of(text: str) -> set[str]:
    """The words of a text in lower case, identifiers cut at underscores and capitals, plurals as singulars."""
    words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", text)}
    return words | {word.removesuffix("s") for word in words}


def test_identifiers_are_cut_into_words():
    assert words_of("_ar_twin MASKGIL_EAR TokenHoles early") >= {"twin", "ear", "hole", "early"}


@pytest.fixture(scope="module")
def places() -> dict[str, list[str]]:
    """{retired word: files that have it}."""
    found: dict[str, list[str]] = {word: [] for word in WORDS}
    for name in files():
        words = words_of((ROOT / name).read_text(encoding="utf-8"))
        for word in WORDS.keys() & words:
            found[word].append(name)
    if not any(files()):
        pytest.skip("not a git checkout")
    return found


@pytest.mark.parametrize("word", WORDS)
def test_retired_words_stand_only_where_the_list_says(word: str, places: dict[str, list[str]]):
    allowed = tuple(WORDS[word] | EVERYWHERE)
    outside = [name for name in places[word] if not any(name == one or name.startswith(f"{one}/") for one in allowed)]
    assert not outside, f"{word!r} gave way to another word (docs/architecture.md): {outside}"


@pytest.mark.parametrize("word", WORDS)
def test_the_list_names_no_file_without_the_word(word: str, places: dict[str, list[str]]):
    unused = [one for one in WORDS[word] if not any(n == one or n.startswith(f"{one}/") for n in places[word])]
    assert not unused, f"take these off the list of {word!r}: {unused}"
