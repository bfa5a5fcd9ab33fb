"""`maskgil eval NAME`: scores of models."""

from maskgil.command_line import Command, CommandGroup


def _scenes():
    from train.eval.scene_score import score_scenes

    return score_scenes


def _speech():
    from train.eval.wer import speech_report

    return speech_report


def _hybrid():
    from train.eval.ar_prefix_scores import hybrid

    return hybrid


def _remasking():
    from train.eval.remasking_scores import score_remasking

    return score_remasking


def _fid():
    from train.eval.fid import fid

    return fid


def _clip():
    from train.eval.clip_score import clip_score

    return clip_score


def _geneval():
    from train.eval.geneval_score import geneval

    return geneval


def _geneval_prompts():
    from train.eval.geneval import geneval_prompts

    return geneval_prompts


def _reading():
    from train.eval.reading import evaluate_reading

    return evaluate_reading


def _sampling():
    from train.eval.sampling_grid import evaluate_sampling

    return evaluate_sampling


def _prompts():
    from train.eval.prompt_sheet import draw_prompt_sheet

    return draw_prompt_sheet


COMMANDS = {
    "scenes": Command("Scene score: does a picture show exactly what was asked?", _scenes),
    "geneval": Command("GenEval's 553 prompts, by the judge of scenes.", _geneval),
    "sampling": Command("Every combination of steps, guidance and refinement, with intervals.", _sampling),
    "reading": Command("How well prompts are read, against readings that people wrote down.", _reading),
    "prompts": Command("A sheet of everyday prompts with what is drawn of each.", _prompts),
    "speech": Command("Word error rates of a speech recognizer.", _speech),
    "hybrid": Command("Scores against the share of autoregressive tokens.", _hybrid),
    "remasking": Command("What remasking keeps and costs as a sentence grows.", _remasking),
    "fid": Command("FID, sFID, inception score, precision and recall.", _fid),
    "clip": Command("CLIP score.", _clip),
    "geneval-prompts": Command("Pictures of GenEval's prompts, for its detector.", _geneval_prompts),
}

NOTES = """\
examples:
  maskgil eval scenes --n 20 --steps 8
  maskgil eval scenes --model scenes scenes-emigm --n 20 --steps 8 16 --candidates 4
  maskgil eval speech --model whisper-scenes"""

GROUP = CommandGroup("Score a model: pictures, speech, hybrid drawing.", lambda: COMMANDS, NOTES)
