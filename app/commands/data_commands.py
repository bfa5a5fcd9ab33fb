"""`maskgil data NAME`: caches that training reads."""

from maskgil.command_line import Command, CommandGroup


def _scenes():
    from train.data.scene_cache import cache_scenes

    return cache_scenes


def _latents():
    from train.data.latent_cache import cache_latents

    return cache_latents


def _images():
    from train.data.cache_command import cache_images

    return cache_images


def _drawings():
    from train.world.fetch_drawings import fetch_drawings

    return fetch_drawings


def _sprites():
    from train.scenes.sprite_folder import unpack_sprites

    return unpack_sprites


def _preview():
    from train.world.preview_sheet import preview_scenes

    return preview_scenes


def _speech():
    from train.asr.corpus import prepare_corpus

    return prepare_corpus


COMMANDS = {
    "drawings": Command("Fetch the drawings of the open world's things from npm into one file.", _drawings),
    "sprites": Command("The folder of drawings for --sprites, unpacked from that file.", _sprites),
    "scenes": Command("Tokens of drawn scenes.", _scenes),
    "latents": Command("Latents of drawn scenes, for eMIGM.", _latents),
    "images": Command("Tokens and text states of your own pictures.", _images),
    "preview": Command("A sheet of scenes of the open world with their captions.", _preview),
    "speech": Command("The spoken corpus of the speech recognizer.", _speech),
}

NOTES = """\
examples:
  maskgil data drawings --out cache/world --things 240
  maskgil data sprites --out cache/sprites
  maskgil data scenes --tokenizer weights/scenes/tokenizer --out cache/scenes --total 98304
  maskgil data images --source photos --tokenizer weights/llamagen-vq16 --text-encoder google/flan-t5-base \\
      --out cache/photos"""

GROUP = CommandGroup("Prepare training data: drawings, caches of tokens, a spoken corpus.", lambda: COMMANDS, NOTES)
