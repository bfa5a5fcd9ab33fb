"""The stages of a drawing, step by step, with what each step has cost."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from maskgil.sampling import best_of_n
from maskgil.sampling.ar_prefix import SamplingStage
from maskgil.sampling.best_of_n import Scorer
from maskgil.sampling.loop import sample
from maskgil.sampling.token_grid import TokenGrid


@dataclass(frozen=True)
class SamplingProgress:
    """After a step.

    step, of  the number of the step, from 1, and of all steps
    nfe       evaluations that each picture has cost so far, those of all its candidates and of the AR model included
    canvas    a row for each picture: its first candidate until all are drawn, then the best
    """

    step: int
    of: int
    nfe: int
    canvas: TokenGrid

    @property
    def done(self) -> bool:
        return self.step == self.of


def run_stages(
    phases: Sequence[SamplingStage],
    canvas: TokenGrid,
    candidates: int = 1,
    critic: Scorer | None = None,
) -> Iterator[SamplingProgress]:
    """The progress after each step of the stages. `critic` scores the candidates, where a picture has several."""
    done, nfe, of = 0, 0, sum(len(phase.plan) for phase in phases)
    for phase in phases:
        filled = sample(phase.predict, canvas, phase.plan)
        for step, canvas in zip(phase.plan, filled, strict=True):
            done, nfe = done + 1, nfe + step.nfe_per_row
            if done < of or candidates == 1:
                yield SamplingProgress(done, of, nfe * candidates, best_of_n.first_candidates(canvas, candidates))
            else:
                assert critic is not None
                chosen = canvas.rows(best_of_n.best_candidates(critic, canvas, candidates))
                yield SamplingProgress(done, of, best_of_n.candidates_nfe(nfe, candidates), chosen)
