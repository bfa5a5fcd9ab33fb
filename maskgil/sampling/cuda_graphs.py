"""Evaluations of a generator as CUDA graphs: a GPU then waits for no Python between its kernels.

At small batches a large MaskGIL is as slow as its kernels can be launched one by one: some nine hundred an evaluation.
All steps of a picture have the same shapes, so that what one evaluation launched can be replayed for the others as a
whole (torch.cuda.CUDAGraph).

B rows, N tokens, L text tokens, K codes.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskgil.condition import Condition
from maskgil.sampling.scoring import MaskedTokenModel

KEPT = 8  # shapes whose graphs are kept: each holds the activations of one evaluation
TEXT = 16  # texts are padded to a multiple of this, or hardly any two would have one shape

Inputs = list[Tensor | None]


class CapturedGraph:
    """One evaluation, recorded with inputs of one shape. Raises RuntimeError where the model asks the device
    something on the way."""

    def __init__(self, run: Callable[..., Tensor], inputs: Inputs):
        self.inputs = [None if given is None else given.clone() for given in inputs]
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        # thread_local: other threads of a server may go on using the device meanwhile
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.output = run(*self.inputs)

    def __call__(self, inputs: Inputs) -> Tensor:
        for own, given in zip(self.inputs, inputs, strict=True):
            if own is not None and given is not None:
                own.copy_(given)
        self.graph.replay()
        return self.output.clone()  # the next replay, of this graph or of another one, overwrites it


class CUDAGraphRunner:
    """A generator, called as before. A shape that comes for the second time is recorded, and replayed from then on; the
    first time has set up what a recording must not (libraries, their workspaces).

    The weights must stay where they are: a graph remembers their addresses. Several threads may call it, one at a time.
    """

    def __init__(
        self, model: MaskedTokenModel, record: Callable[[Callable, Inputs], Callable[[Inputs], Tensor]] = CapturedGraph
    ):
        self.model, self.config, self.record = model, model.config, record
        self.met: set[tuple] = set()
        self.graphs: OrderedDict[tuple, Callable[[Inputs], Tensor]] = OrderedDict()
        self.lock = threading.Lock()

    @torch.no_grad()
    def __call__(
        self,
        tokens: Int[Tensor, "B N"],
        grid: tuple[int, int],
        condition: Condition,
        drop: Bool[Tensor, " B"] | None = None,
        remaining: Int[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B N K"]:
        """Logits, as the model's own forward, which says what it raises. `remaining`: for models that read it."""
        config: Any = self.config
        if config.text_dim is not None:
            room = min(-(-condition.length // TEXT) * TEXT, config.text_length)
            condition = condition.pad(max(condition.length, room))
        inputs: list[Any] = [tokens, condition.states, condition.mask, drop, remaining]

        def run(tokens: Tensor, states: Tensor, mask: Tensor, drop: Tensor | None, remaining: Tensor | None) -> Tensor:
            timed: dict[str, Any] = {} if remaining is None else {"remaining": remaining}
            return self.model(tokens, grid, Condition(states, mask), drop, **timed)

        key = (grid, *(None if given is None else (given.shape, given.dtype) for given in inputs))
        with self.lock:
            if key not in self.met:
                self.met.add(key)
                return run(*inputs)
            if key not in self.graphs:
                try:
                    self.graphs[key] = self.record(run, inputs)
                except torch.OutOfMemoryError:  # drawing comes first: give back what graphs hold, and go without
                    self.graphs.clear()
                    evaluate: Any = run
                    self.graphs[key] = lambda given: evaluate(*given)
                if len(self.graphs) > KEPT:
                    self.graphs.popitem(last=False)
            self.graphs.move_to_end(key)
            return self.graphs[key](inputs)
