"""The diffusion head: schedule, loss and samplers against the published numbers, exact solutions and diffusers."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from maskgil.models.diffusion_head import DiffusionHead, SimpleMLPAdaLN, betas, bound, diffusion_schedule
from maskgil.models.diffusion_samplers import DDPM, Denoise, DPMSolver, SolverNode, denoiser, solver_node


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lively(seed: int = 0, channels: int = 3, width: int = 16, condition: int = 5) -> SimpleMLPAdaLN:
    """A tiny network whose last layers are not zero."""
    net = SimpleMLPAdaLN(channels, width, 2, condition)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=seeded(seed))
    return net.requires_grad_(False)


# --- times and tables -------------------------------------------------------------------------------------------------


def test_solver_times_are_the_released_ones():
    assert DPMSolver(8).times == pytest.approx(
        [998.996, 990.634, 964.952, 886.917, 673.572, 328.977, 110.850, 14.733], abs=6e-4
    )
    assert DPMSolver(14).times == pytest.approx(
        [998.996, 995.117, 987.515, 972.605, 943.422, 886.917, 781.643, 608.377]
        + [395.001, 218.798, 110.850, 52.912, 23.320, 4.903],
        abs=6e-4,
    )


def test_solver_path_keeps_996_times():
    first, *_ = DPMSolver(3).intervals[0]
    *_, last = DPMSolver(3).intervals[-1]
    assert first.time == pytest.approx(1000 * 995 / 996)
    assert first.log_snr == pytest.approx(-5.0778, abs=1e-4) and last.log_snr == pytest.approx(5.0472, abs=1e-4)
    assert last.time == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize(
    "steps, orders",
    [(1, [1]), (2, [2]), (3, [2, 1]), (4, [3, 1]), (6, [3, 2, 1]), (8, [3, 3, 2]), (14, [3, 3, 3, 3, 2])],
)
def test_solver_orders_make_up_the_evaluations(steps: int, orders: list[int]):
    assert DPMSolver(steps).step_orders == orders
    assert len(DPMSolver(steps).times) == sum(orders) == steps


def test_nodes_lie_on_the_training_schedule():
    """At a training time the node's alpha and sigma are those of the loss."""
    bar = (1 - betas()).cumprod(0)
    for time in (1, 300, 700, 990):
        at = solver_node(0.5 * math.log(bar[time] / (1 - bar[time])))
        assert at.time == pytest.approx(time * 1000 / 996)
        assert at.alpha == pytest.approx(bar[time].sqrt().item())
        assert at.sigma == pytest.approx((1 - bar[time]).sqrt().item())


def test_ddpm_times_are_linspace():
    times = DDPM(100).times
    assert times[:3] == [999, 989, 979] and times[-1] == 0 and len(times) == 100


# --- network and loss -------------------------------------------------------------------------------------------------


def test_names_and_shapes_are_the_released_ones():
    expected = {}

    def linear(name: str, outputs: int, inputs: int) -> None:
        expected.update({f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)})

    linear("net.time_embed.mlp.0", 8, 256)
    linear("net.time_embed.mlp.2", 8, 8)
    linear("net.cond_embed", 8, 5)
    linear("net.input_proj", 8, 3)
    for i in range(2):
        expected |= {f"net.res_blocks.{i}.in_ln.weight": (8,), f"net.res_blocks.{i}.in_ln.bias": (8,)}
        linear(f"net.res_blocks.{i}.mlp.0", 8, 8)
        linear(f"net.res_blocks.{i}.mlp.2", 8, 8)
        linear(f"net.res_blocks.{i}.adaLN_modulation.1", 24, 8)
    linear("net.final_layer.linear", 6, 8)
    linear("net.final_layer.adaLN_modulation.1", 16, 8)
    head = DiffusionHead(channels=3, width=8, depth=2, condition=5)
    assert {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()} == expected


def test_untrained_loss_is_1_plus_0_72():
    """On N(0, 1) targets the zero head has an MSE of 1 and a bound of about 0.72 bits, nearly all of it at time 999."""
    head = DiffusionHead(channels=16, width=8, depth=1, condition=4)
    time = torch.arange(1000).repeat(64)
    target, noise = torch.randn(2, len(time), 16, generator=seeded())
    loss = head.loss(torch.zeros(len(time), 4), target, time, noise).detach()
    mse = noise.square().mean(-1)
    assert mse.mean().item() == pytest.approx(1.0, abs=0.01)
    assert (loss - mse).mean().item() == pytest.approx(0.72, abs=0.06)


def test_bound_is_the_divergence_of_two_gaussians():
    table = diffusion_schedule(torch.device("cpu"))
    time = torch.tensor([1, 10, 500, 998])
    target, noise, epsilon, v = torch.randn(4, 4, 3, generator=seeded())
    x = table.alpha[time] * target + table.sigma[time] * noise
    bar = (1 - betas()).cumprod(0)
    start = (x.double() - (1 - bar[time]).sqrt()[:, None] * epsilon) / bar[time].sqrt()[:, None]
    beta, now, before = betas()[time][:, None], bar[time][:, None], bar[time - 1][:, None]

    def mean(x_0: Tensor) -> Tensor:  # 2006.11239, equation 7
        return before.sqrt() * beta / (1 - now) * x_0 + (1 - beta).sqrt() * (1 - before) / (1 - now) * x

    low, high = (beta * (1 - before) / (1 - now)).log(), beta.log()
    log_variance = (v + 1) / 2 * high + (1 - v) / 2 * low
    true = torch.distributions.Normal(mean(target), (low / 2).exp())
    model = torch.distributions.Normal(mean(start), (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(true, model).mean(-1) / math.log(2)
    assert torch.allclose(bound(target, x, time, epsilon, v).double(), expected, rtol=1e-3)


def test_bound_at_time_0_is_a_mass_of_at_most_1():
    target, noise, epsilon, v = torch.randn(4, 50, 3, generator=seeded())
    table, time = diffusion_schedule(torch.device("cpu")), torch.zeros(50, dtype=torch.long)
    first = bound(target, table.alpha[0] * target + table.sigma[0] * noise, time, epsilon, v)
    assert (first >= 0).all() and first.isfinite().all()


def test_bound_trains_the_variance_alone():
    head = DiffusionHead(channels=3, width=8, depth=1, condition=4)
    z, target, noise = torch.randn(20, 4), torch.randn(20, 3), torch.randn(20, 3)
    head.loss(z, target, torch.randint(1000, (20,)), noise).mean().backward()
    bias = head.net.final_layer.linear.bias.grad
    assert torch.allclose(bias[:3], -2 / 3 * noise.mean(0), atol=1e-6)  # of the MSE alone, epsilon being 0
    assert bias[3:].abs().min() > 0


# --- samplers ---------------------------------------------------------------------------------------------------------


def analytic(solver: DPMSolver, epsilon: Callable[[Tensor, SolverNode], Tensor]) -> Denoise:
    """The denoiser whose epsilon is a function of x and of the schedule's point, at the times of a solver."""
    at = {point.time: point for nodes in solver.intervals for point in nodes}
    return lambda x, time: torch.cat([epsilon(x, at[time]), torch.zeros_like(x)], dim=-1)


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 14])
def test_solver_is_exact_when_the_data_is_one_point(steps: int):
    point, solver = torch.tensor([[1.5, -0.5]], dtype=torch.float64), DPMSolver(steps)
    start = torch.randn(4, 2, dtype=torch.float64, generator=seeded())
    drawn = solver(analytic(solver, lambda x, at: (x - at.alpha * point) / at.sigma), lambda k: start)
    first, last = solver.intervals[0][0], solver.intervals[-1][-1]
    expected = last.alpha * point + last.sigma / first.sigma * (start - first.alpha * point)
    assert torch.allclose(drawn, expected, atol=1e-9)


def test_solver_converges_with_its_order():
    """On N(0, 0.3^2) data the path is known: x / sqrt(alpha^2 0.09 + sigma^2) is constant along it."""

    def deviation(at: SolverNode) -> float:
        return math.sqrt(0.09 * at.alpha**2 + at.sigma**2)

    start = torch.ones(1, 1, dtype=torch.float64)
    errors = []
    for steps in (62, 122, 242):  # intervals of order 3, and a last one of order 2
        solver = DPMSolver(steps)
        drawn = solver(analytic(solver, lambda x, at: at.sigma * x / deviation(at) ** 2), lambda k: start)
        exact = deviation(solver.intervals[-1][-1]) / deviation(solver.intervals[0][0])
        errors.append(abs(drawn.item() - exact))
    assert errors[0] < 1e-4 and errors[1] < errors[0] / 5 and errors[2] < errors[1] / 6


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 14])
def test_solver_equals_diffusers_on_the_same_nodes(steps: int):
    """diffusers' singlestep solver, told our nodes, orders and the inner update of the paper: equal to 1e-12."""
    diffusers = pytest.importorskip("diffusers")
    ours = DPMSolver(steps)
    theirs = diffusers.DPMSolverSinglestepScheduler(solver_order=3, final_sigmas_type="sigma_min")
    theirs.set_timesteps(steps)
    nodes = [point for interval in ours.intervals for point in interval[:-1]] + [ours.intervals[-1][-1]]
    theirs.sigmas = torch.tensor([math.exp(-point.log_snr) for point in nodes], dtype=torch.float64)
    theirs.timesteps = torch.tensor(ours.times, dtype=torch.float64)
    substeps = [(order, sub) for order in ours.step_orders for sub in range(1, order + 1)]
    theirs.order_list = [sub for _, sub in substeps]
    mix = torch.randn(3, 3, dtype=torch.float64, generator=seeded()) / 3

    def epsilon(x: Tensor, time: float) -> Tensor:
        return torch.tanh(x @ mix + time / 500)

    x = start = torch.randn(4, 3, dtype=torch.float64, generator=seeded(1))
    for i, (order, sub) in enumerate(substeps):
        theirs.register_to_config(solver_type="heun" if (order, sub) == (3, 2) else "midpoint")
        theirs._step_index = i
        x = theirs.step(epsilon(x, ours.times[i]), theirs.timesteps[i], x).prev_sample
    drawn = ours(lambda x, time: torch.cat([epsilon(x, time)] * 2, dim=-1), lambda k: start)
    assert torch.allclose(drawn, x, rtol=1e-12, atol=1e-12 * 500)


@pytest.mark.parametrize("steps", [2, 25])
def test_ddpm_equals_diffusers_with_the_same_noise(steps: int):
    """diffusers' own sampler in the published settings, its noise recorded, against ours given that noise."""
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        variance_type="learned_range",
        prediction_type="epsilon",
        clip_sample=False,
        timestep_spacing="linspace",
    )
    theirs.set_timesteps(steps)
    denoise = denoiser(lively(), torch.randn(4, 5, generator=seeded()))
    generator = seeded(7)
    x = torch.randn(4, 3, generator=generator)
    for time in theirs.timesteps:
        x = theirs.step(denoise(x, float(time)), time, x, generator=generator).prev_sample
    replay = seeded(7)
    drawn = DDPM(steps)(denoise, lambda k: torch.randn(4, 3, generator=replay))
    assert torch.allclose(drawn, x, atol=1e-4, rtol=1e-5)


def test_guidance_touches_only_its_tokens_and_only_epsilon():
    net, (z, other) = lively(), torch.randn(2, 6, 5, generator=seeded())
    x, guided, scale = torch.randn(6, 3), torch.tensor([1, 4]), torch.tensor([4.0, 1.0])
    out = denoiser(net, z, other[guided], guided, scale)(x, 300.0)
    plain, null = denoiser(net, z)(x, 300.0), denoiser(net, other)(x, 300.0)
    expected = plain.clone()
    expected[1, :3] = null[1, :3] + 4 * (plain[1, :3] - null[1, :3])  # a scale of 1, at 4, changes nothing
    assert torch.allclose(out, expected, atol=1e-5)


def test_a_head_learns_what_it_is_told():
    """Two values of z with a target each, drawn again (not by DDPM, which a short training leaves unstable at time 999,
    where an error of epsilon grows 20,000-fold in x_0)."""
    torch.manual_seed(0)
    head = DiffusionHead(channels=2, width=32, depth=1, condition=1)
    z = torch.tensor([[-1.0], [1.0]]).repeat(64, 1)
    target = torch.tensor([[0.8, -0.4], [-1.2, 0.5]]).repeat(64, 1)
    optimiser = torch.optim.Adam(head.parameters(), lr=3e-3)
    for _ in range(300):
        loss = head.loss(z, target, torch.randint(1000, (128,)), torch.randn(128, 2)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    start = torch.randn(128, 2, generator=seeded())
    drawn = DPMSolver(8)(denoiser(head.requires_grad_(False).net, z), lambda k: start)
    assert (drawn - target).abs().median() < 0.1


def test_ddpm_draws_a_known_distribution():
    """Data N(0.5, 0.3^2), whose best epsilon is known."""
    bar = (1 - betas()).cumprod(0)

    def denoise(x: Tensor, time: float) -> Tensor:
        alpha, sigma = bar[int(time)].sqrt().item(), (1 - bar[int(time)]).sqrt().item()
        epsilon = sigma * (x - alpha * 0.5) / (alpha**2 * 0.09 + sigma**2)
        return torch.cat([epsilon, torch.zeros_like(x)], dim=-1)

    generator = seeded()
    drawn = DDPM(100)(denoise, lambda k: torch.randn(4000, 1, generator=generator))
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.02)
    assert drawn.std().item() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: DPMSolver(0), "at least 1 head step; 0"),
        (lambda: DDPM(0), "2 to 1000 head steps; 0"),
        (lambda: DDPM(8, clip=0.0), "clips to a number above 0; 0.0"),
        (lambda: DDPM(1001), "2 to 1000 head steps; 1001"),
    ],
)
def test_bad_samplers_are_refused(make, words: str):
    with pytest.raises(ValueError, match=words):
        make()


def test_clipping_keeps_ddpm_from_the_errors_of_a_small_head():
    """An epsilon that is a little wrong at time 999 is 20,000 times as wrong in x_0."""
    pytest.importorskip("diffusers")

    def drawn(sampler: DDPM) -> float:
        draw = torch.Generator().manual_seed(0)
        wrong = lambda x, time: torch.cat([0.9 * x if time > 900 else 0 * x, torch.zeros_like(x)], 1)  # noqa: E731
        return sampler(wrong, lambda k: torch.randn(64, 3, generator=draw)).abs().max().item()

    assert drawn(DDPM(50)) > 50 and drawn(DDPM(50, clip=5.0)) < 10
