"""The modules whose public functions are the commands of `maskgil train`, in the order of its list.

Importing this file imports all recipes, which takes seconds. The list of commands reads its source instead
(train/commands.py).
"""

from train.recipes import asr, large, scenes, scenes_judges, scenes_latents, scenes_tokenizers, text_to_image

MODULES = (scenes_tokenizers, scenes, scenes_judges, scenes_latents, asr, text_to_image, large)
