"""Prompt reader: any English to the words that a text encoder was trained on, and what became of each word.

    reader = PromptReader.load("weights/scenes")
    reading = reader.read("a photo of 2 cute kittens and a dragon")
    reading.drawn    # "two kittens"
    reading.note()   # "'a dragon' left out (no drawing of it is known)"

The way of a prompt: text_normalizer (tokens), lexicon (phrases), scene_parser and noun_reader (what is asked for),
scene_fitting (what fits the model), caption_writer (what the encoder gets). docs/prompts.md tells what is read as what.
"""

from text_encoder.prompt_reader.prompt_reading import PromptReading, PromptSpan, ReadGroup, ReadScene
from text_encoder.prompt_reader.prompt_vocabulary import PromptVocabulary, VocabularyEntry
from text_encoder.prompt_reader.reader import PromptReader
from text_encoder.prompt_reader.stand_ins import StandIn, StandInTable
from text_encoder.prompt_reader.surprises import surprise_prompts
from text_encoder.prompt_reader.thing_list import COLUMNS, THINGS_PICTURE, VocabularyGroup, vocabulary_groups

__all__ = [
    "COLUMNS",
    "THINGS_PICTURE",
    "PromptReader",
    "PromptReading",
    "PromptSpan",
    "PromptVocabulary",
    "ReadGroup",
    "ReadScene",
    "StandIn",
    "StandInTable",
    "VocabularyEntry",
    "VocabularyGroup",
    "surprise_prompts",
    "vocabulary_groups",
]
