"""Runs of the peers' methods through ComfyUI's KSampler: their steps, and their predictions in place of the model's output.

The formulas are in `peers.py` and in the library (`otcache_core/commands/rivals.py`, `otcache_core/calibration/graph.py`).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property, partial

import numpy as np
import torch
from peers import (
    budcache_steps,
    dpcache_steps,
    held_final,
    lemica_steps,
    outcome_costs,
    path_aware_costs,
    tea_changes,
    tea_schedule,
)
from sampler_runs import with_wrapper

from otcache_core.calibration.graph import edge_costs, peak_suppressed_paths
from otcache_core.calibration.inner_products import recorded
from otcache_core.commands.rivals import Following, differences, held, taylor, ways
from otcache_core.sampling.cached_run import CachedRun
from otcache_core.sampling.trajectory import Trajectory
from otcache_core.schedules.schedule import Predictor, make_schedule, uniform_steps

MEAN_VELOCITY = Predictor(kind="mean_velocity")
AT_ONCE = 64  # latents of one prompt
RECORDING, SEARCHING = ("TeaCache", "MagCache", "MeanCache", "DPCache"), ("LeMiCa", "BudCache")  # what they need beforehand


def step_of(sigmas: np.ndarray, sigma: float) -> int:
    """The step of the grid that begins at `sigma`."""
    return int(np.abs(sigmas[:-1] - sigma).argmin())


def following(model, run, denoised: bool = False):
    """A clone of `model` for one sampling: `run` says which steps are evaluated and predicts the velocities of the others.

    run: `computes(step)`, `observe(step, d, x)`, `predict(step)`, and `sigmas`. denoised: predicts denoised latents instead.
    """

    def ahead(executor, x, timestep, *args, **kwargs):
        sigma = float(timestep[0])
        step = step_of(run.sigmas, sigma)
        if run.computes(step):
            result = executor(x, timestep, *args, **kwargs)
            run.observe(step, result if denoised else (x - result) / sigma, x)
            return result
        return run.predict(step) if denoised else x - sigma * run.predict(step)

    return with_wrapper(model, ahead)


def recording(model, into: list):
    """A clone of `model` that keeps (sigma, x, denoised) of every evaluation."""

    def note(executor, x, timestep, *args, **kwargs):
        result = executor(x, timestep, *args, **kwargs)
        into.append((float(timestep[0]), x.clone(), result.clone()))
        return result

    return with_wrapper(model, note)


def trajectories(seen: list) -> list[Trajectory]:
    """What `recording` kept of Euler steps down to 0, case by case."""
    sigmas = np.array([*(sigma for sigma, _, _ in seen), 0.0])
    d = torch.stack([(x - denoised) / sigma for sigma, x, denoised in seen], dim=1)
    x = torch.stack([*(x for _, x, _ in seen), seen[-1][2]], dim=1)
    return [Trajectory(sigmas, *pair) for pair in zip(x, d, strict=True)]


def with_velocities(host, case, cfg: float, function: Callable):
    """What function(evaluate) returns, where evaluate(x, sigma) gives velocities of latents of the one prompt of `case`.

    It is called where a sampler would be, so that the model, guidance and all are ComfyUI's.
    """
    import comfy.samplers

    found = []

    def sampler(model, x, sigmas, extra_args=None, callback=None, disable=None):
        def evaluate(latents, sigma):
            parts = [part - model(part, part.new_full((len(part),), sigma), **extra_args) for part in latents.split(AT_ONCE)]
            return torch.cat(parts) / sigma

        found.append(function(evaluate))
        return x

    sigmas = torch.tensor([1.0, 0.0])
    host.run("SamplerCustom", model=case.model, add_noise=False, noise_seed=0, cfg=cfg, positive=case.positive,
             negative=case.negative, sampler=comfy.samplers.KSAMPLER(sampler), sigmas=sigmas,
             latent_image=case.latent)  # fmt: skip
    return found[0]


class Peers:
    """All peers' methods for one model and setting.

    runs: recorded full runs of calibration cases. ask(function): `with_velocities` of the first of these. calls: of
    BudCache's objective. without: names that are left out.
    """

    def __init__(self, runs: list[Trajectory], ask: Callable, calls: int, without: Sequence[str] = ()):
        self.runs, self.calls, self.without = runs, calls, without
        self.sigmas, self.steps = runs[0].sigmas, len(runs[0].d)
        self._ask, self._asked = ask, Counter()

    def ask(self, name: str, function: Callable):
        """What function(evaluate) returns; the evaluations are those of the method `name`."""

        def counted(evaluate):
            def one(x, sigma):
                self._asked[name] += len(x)
                return evaluate(x, sigma)

            return function(one)

        return self._ask(counted)

    def beforehand(self, name: str) -> float:
        """What the method `name` has asked of the model so far, in full runs of one case (BudCache: for its last budget)."""
        if name in RECORDING:
            return float(len(self.runs))
        return 1 + self._asked[name] / self.steps if name in SEARCHING else 0.0

    @cached_property
    def _tea(self) -> np.ndarray:
        return tea_changes(self.runs)

    @cached_property
    def _lemica(self):
        return self.ask("LeMiCa", lambda evaluate: outcome_costs(evaluate, self.runs[0]))

    @cached_property
    def _dpcache(self) -> np.ndarray:
        return path_aware_costs(self.runs)

    @cached_property
    def _mean_velocity(self):
        return edge_costs(recorded(self.runs), MEAN_VELOCITY)

    def mean_cache(self, budget: int) -> CachedRun:
        """MeanCache: the peak-suppressed shortest path, and the lookback K of each of its edges."""
        costs, spans = self._mean_velocity
        steps = peak_suppressed_paths(costs, [budget])[budget]
        chosen = tuple(int(spans[a, b]) for a, b in zip(steps, (*steps[1:], self.steps), strict=True))
        made = make_schedule(sigmas=tuple(self.sigmas), compute_steps=steps, predictor=MEAN_VELOCITY, spans=chosen)
        return CachedRun(made)

    def budcache(self, budget: int) -> tuple[int, ...]:
        """BudCache's steps for the first calibration case."""
        run = self.runs[0]

        def search(evaluate):
            def objective(mask):
                return float((held_final(evaluate, run.x[:1], self.sigmas, mask) - run.x[-1]).square().mean())

            return budcache_steps(objective, budget, self.steps, self.calls)

        self._asked["BudCache"] = 0
        return self.ask("BudCache", search)

    def at(self, budget: int) -> dict[str, tuple[Callable, bool]]:
        """By name: what begins a run (for `following`), and whether it predicts denoised latents."""
        even = uniform_steps(budget, self.steps)

        def go(steps, predict):
            return partial(Following, self.sigmas, (steps, predict))

        line = partial(taylor, order=1)
        found = {name: (go(*way), False) for name, way in ways(budget, self.runs).items()}
        found |= {f"FSampler, h{order + 1}, denoised": (go(even, partial(differences, order=order)), True) for order in (1, 2)}
        found |= {
            "TeaCache": (go(tea_schedule(self._tea, budget), held), False),
            "MeanCache": (partial(self.mean_cache, budget), False),
            "DPCache": (go(dpcache_steps(self._dpcache, budget), line), False),
        }
        if "LeMiCa" not in self.without:
            found["LeMiCa"] = go(lemica_steps(self._lemica, budget), held), False
        if "BudCache" not in self.without:
            found["BudCache"] = go(self.budcache(budget), held), False
        return {name: way for name, way in found.items() if name not in self.without}
