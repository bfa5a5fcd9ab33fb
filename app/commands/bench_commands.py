"""`maskgil bench NAME`: speed, and the papers' findings."""

from maskgil.command_line import Command, CommandGroup


def _generation():
    from benchmarks.generation import bench_generation

    return bench_generation


def _training():
    from benchmarks.training import bench_training

    return bench_training


def _serving():
    from benchmarks.serving_load import bench_serving

    return bench_serving


def _speech_to_image():
    from benchmarks.speech_to_image_latency import bench_speech_to_image

    return bench_speech_to_image


def _released():
    from benchmarks.released_model_speed import bench_released_models

    return bench_released_models


def _paper_findings():
    try:
        from experiments.paper_findings.measure_findings import paper_findings
    except ModuleNotFoundError as error:
        raise ValueError(f"{error}: the experiments are in a checkout of the project, not in the package") from None

    return paper_findings


COMMANDS = {
    "generation": Command("Time and memory of each stage from prompt to pixels.", _generation),
    "training": Command("Time, MFU and memory of a training step.", _training),
    "serving": Command("Throughput and latency of many visitors at one engine.", _serving),
    "latency": Command("Latency of each stage from speech to picture, in a browser.", _speech_to_image),
    "speech-to-image": Command("The old name of latency.", _speech_to_image),
    "released": Command("Time of an image of each released model, with random weights.", _released),
    "paper-findings": Command("Findings of the MaskGIL and eMIGM papers, on drawn scenes.", _paper_findings),
}

GROUP = CommandGroup("Measure speed and memory, and test the papers' findings.", lambda: COMMANDS)
