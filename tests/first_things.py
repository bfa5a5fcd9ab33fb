"""The prompt reader of the first 111 things, as they shipped.

What a prompt becomes depends on what can be drawn: a bird was a parrot until birds were things. Tests that name such
words use this reader, and hold for whatever vocabulary ships.
"""

from pathlib import Path

from text_encoder.prompt_reader import PromptReader

FOLDER = Path(__file__).with_name("fixtures") / "first_things"
READER = PromptReader.load(FOLDER)
