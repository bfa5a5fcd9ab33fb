"""`maskgil export PART`: trained parts as a model folder."""

from maskgil.command_line import Command, Group


def _scenes():
    from train.export import scenes

    return scenes


def _emigm():
    from train.export import emigm

    return emigm


def _ar():
    from train.export import ar

    return ar


def _text():
    from train.export import text

    return text


def _class():
    from train.export import class_driven

    return class_driven


def _reader():
    from train.export import reader

    return reader


def _lora():
    from train.lora import merge

    return merge


COMMANDS = {
    "scenes": Command("A text-to-image folder of the bundled kind.", _scenes),
    "emigm": Command("The same for eMIGM on latents.", _emigm),
    "ar": Command("The autoregressive model beside a text-to-image folder.", _ar),
    "text": Command("A folder of the large text-driven recipes.", _text),
    "class": Command("A folder of the large class-driven recipes.", _class),
    "reader": Command("The judge of the scene score.", _reader),
    "lora": Command("A text-to-image folder with adapters merged into it.", _lora),
}

GROUP = Group("Write trained parts as a model folder that the app opens.", lambda: COMMANDS)
