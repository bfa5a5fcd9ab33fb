"""Sampling options as the plan of a token grid: `SamplingParams` in, steps out."""

from collections.abc import Sequence

from maskgil.generator import TokenSpace
from maskgil.params import SamplingParams
from maskgil.prompt_checks import validate_seeds
from maskgil.sampling.guidance import Guidance
from maskgil.sampling.loop import StepParams
from maskgil.sampling.plans import masked_plan
from maskgil.sampling.token_grid import TokenGrid


def plan_for(
    space: TokenSpace,
    grid: TokenGrid,
    seeds: Sequence[int],
    params: SamplingParams,
    first: int = 0,
    since: int | None = None,
    end: bool = False,
) -> list[StepParams]:
    """Steps that fill the masked tokens of a grid; a seed for each of its rows.

    A row with fewer masked tokens than steps takes fewer steps, and so do all rows of its plan.

    first  number of the first step, where others came before
    since  step whose tokens and later ones a refinement pass may remask; None: `first`
    end    the plan is the end of one for whole pictures, from where as many tokens are decided

    Raises ValueError for an impossible seed or option, and for a row without masked tokens.
    """
    seeds, (order, schedule) = validate_seeds(seeds), space.order_and_schedule(params)
    total, masked = grid.mask.shape[1], grid.num_masked()
    schedule.counts(params.steps, total)  # refuses more steps than a picture has tokens
    if not end:
        validate_masked(masked)
    plan = masked_plan(
        masked,
        steps=params.steps if end else min(params.steps, min(masked)),
        total=total if end else None,
        curve=schedule,
        order=order,
        temperature=params.temperature,
        choice_temperature=params.choice_temperature,
        guidance=Guidance.of(params),
        seeds=seeds,
        top_k=params.top_k,
        top_p=params.top_p,
        refinement_passes=params.refinement_passes,
        remask_fraction=params.remask_fraction,
        remask_since=since,
        first_step=first,
        device=grid.mask.device,
    )
    return space.finish_plan(plan, grid, seeds, params)


def validate_masked(masked: Sequence[int]) -> None:
    """Raises ValueError when a row has no masked token. `masked`: how many each row has."""
    if not min(masked):
        raise ValueError("the canvas has a picture without masked cells, so nothing is left to draw: mark some cells")
