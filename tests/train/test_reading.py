"""train.eval.reading: prompts as people write them, against readings that people wrote down."""

from pathlib import Path

from text_encoder.prompt_reader import PromptReader
from train.eval.reading import ReadingChecker, load_expected

FOLDER = Path(__file__).resolve().parents[2] / "weights" / "scenes"
CHECKER = ReadingChecker(PromptReader.load(FOLDER))


def test_at_least_95_in_100_prompts_are_read_right():
    checks = [CHECKER.check(expected) for expected in load_expected()]
    wrong = [f"{check.reading.prompt}: {'; '.join(check.problems)}" for check in checks if check.problems]
    assert len(checks) >= 300 and len(wrong) <= 0.05 * len(checks), "\n".join(wrong)


def problems(prompt: str, **expected) -> tuple[str, ...]:
    empty = {"things": [], "relations": [], "avoid": [], "not_drawable": [], "level": "easy"}
    return CHECKER.check(empty | {"prompt": prompt} | expected).problems


def test_a_wrong_reading_is_found():
    cat = {"noun": "cat", "count": 1}
    assert not problems("a cat", things=[cat])
    assert "instead of" in problems("two cats", things=[cat])[0]
    assert "is drawn, which nobody asked for" in problems("a cat and a dog", things=[cat])[0]
    assert "neither drawn nor named" in problems("a cat", things=[cat, {"noun": "anvil", "count": 1}])[0]
    assert "to be avoided" in problems("a cat and a dog", things=[cat], avoid=["dog"])[0]
    assert "nothing says so" in problems("a cat", things=[cat | {"color": "blue"}])[0]
    assert "is not large" in problems("a cat", things=[cat | {"size": "big"}])[0]
    assert "not named as left out" in problems("a cat", things=[cat], not_drawable=["freedom"])[0]
    assert "went unnoticed" in problems("a cat", things=[cat], place="kitchen")[0]
    two = [cat, {"noun": "dog", "count": 1}]
    assert "is not left of" in problems("a cat right of a dog", things=two, relations=[["cat", "left of", "dog"]])[0]
