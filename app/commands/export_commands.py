"""`maskgil export PART`: trained parts as a model folder."""

from maskgil.command_line import Command, CommandGroup


def _scenes():
    from train.export import export_scenes

    return export_scenes


def _emigm():
    from train.export import export_emigm

    return export_emigm


def _ar():
    from train.export import export_ar

    return export_ar


def _text():
    from train.export import export_text

    return export_text


def _class():
    from train.export import export_class

    return export_class


def _reader():
    from train.export import export_reader

    return export_reader


def _lora():
    from train.lora import merge

    return merge


def _stand_ins():
    from train.stand_ins.stand_in_tables import build_stand_ins

    return build_stand_ins


def _things():
    from train.thing_pictures import draw_things

    return draw_things


def _bundled():
    from train.bundled_export import export_bundled

    return export_bundled


COMMANDS = {
    "scenes": Command("A text-to-image folder of the bundled kind.", _scenes),
    "emigm": Command("The same for eMIGM on latents.", _emigm),
    "ar": Command("The autoregressive model beside a text-to-image folder.", _ar),
    "text": Command("A folder of the large text-driven recipes.", _text),
    "class": Command("A folder of the large class-driven recipes.", _class),
    "reader": Command("The judge of the scene score.", _reader),
    "things": Command("The small pictures of a model's things for the Draw page.", _things),
    "stand-ins": Command("The table of known things that stand in for unknown nouns.", _stand_ins),
    "bundled": Command("All bundled scene models at once, from a run over more things.", _bundled),
    "lora": Command("A text-to-image folder with adapters merged into it.", _lora),
}

GROUP = CommandGroup("Write trained parts as a model folder that the app opens.", lambda: COMMANDS)
