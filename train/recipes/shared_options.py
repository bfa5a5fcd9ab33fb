"""Options that several recipes have, as annotated types: their help on the command line is written once."""

from typing import Annotated

from tyro.conf import arg

Steps = Annotated[int, arg(help="training steps of the whole run")]
Batch = Annotated[int, arg(help="pictures a step")]
Rate = Annotated[float, arg(help="learning rate of AdamW")]
MuonRate = Annotated[float, arg(help="learning rate of Muon, which trains the matrices of hidden layers")]
Seed = Annotated[int, arg(help="of new weights, the order of the data and the masks")]
Drawings = Annotated[str | None, arg(help="folder of drawings of the things; left out: only the emoji font")]
SceneTokenCache = Annotated[
    str, arg(help="caches of `maskgil data scenes`, with commas between; scenes are mixed by their number")
]
SceneLatentCache = Annotated[str, arg(help="caches of `maskgil data latents`, with commas between")]
SceneTokenizer = Annotated[str, arg(help="folder of the tokenizer that made the cache")]
Compile = Annotated[bool, arg(help="torch.compile: 20% faster where there is a C++ compiler")]
Workers = Annotated[
    int,
    arg(
        help="processes that write captions: a GPU keeps several busy. Batches of one differ from those of several, so "
        "that a run keeps to one or to several"
    ),
]
PerceptualNetFolder = Annotated[
    str, arg(aliases=("--observer",), help="folder of scenes-perceptual-net, or lpips; empty: no perceptual loss")
]
PerceptualWeight = Annotated[float, arg(help="weight of the perceptual loss")]
AdversarialFrom = Annotated[int | None, arg(help="step from which a PatchGAN is trained too; left out: none is")]
AdversarialWeight = Annotated[float, arg(help="weight of the PatchGAN's loss")]
Corruption = Annotated[float, arg(aliases=("--muddle",), help="share of tokens that are exchanged for near ones")]

ImageCacheFolder = Annotated[
    str, arg(help="cache of `maskgil data images`; several as cache/a:3,cache/b:1, with their weights")
]
ValidCache = Annotated[str, arg(help="another cache, for the validation loss")]
Init = Annotated[str, arg(help="model folder or export to go on from, whose shape stays; left out: a new model")]
PreviousStage = Annotated[str, arg(help="export of the stage before, to go on from")]
Reference = Annotated[bool, arg(help="train as the published MaskGIL trainer does (docs/training-large.md)")]
Repeats = Annotated[int, arg(help="times and noises that the diffusion head sees of each token in a step")]
