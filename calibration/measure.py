"""Record frame mass at every site while a pipeline, or the denoiser alone, denoises."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from f3prune.calibration.attention_hook import AttentionCall, AttentionHook
from f3prune.calibration.calibration_file import Calibration, SiteInfo
from f3prune.calibration.frame_mass import attention_with_mass
from f3prune.core.errors import InputError
from f3prune.families import LatentShape, Site, SiteKind, family_of


class FrameMassRecorder:
    """Collects frame mass per site and timestep.

    Calls that share a timestep, the two halves of guidance or several prompts, are averaged, weighted by their batch.

    Args:
        denoiser: a dense denoiser of a supported family.
        rows: sample this many query tokens per frame; ``None`` measures all.
        seed: of the sampling.
        sites: which kind of sites, see ``Family.find_sites``.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        rows: int | None = None,
        seed: int = 0,
        sites: SiteKind = "temporal",
    ) -> None:
        if rows is not None and rows < 1:
            raise InputError(f"`rows` is {rows}, expected a whole number of query tokens per frame, at least 1")
        self.family = family_of(denoiser)
        self.rows = rows
        self._generator = torch.Generator("cpu").manual_seed(seed)
        self._sites = {site.name: site for site in self.family.find_sites(denoiser, sites)}
        self._sums: dict[str, dict[float, tuple[torch.Tensor, int]]] = {name: {} for name in self._sites}
        self._timestep: float | None = None
        self._running: dict[str, tuple[torch.Tensor, int]] = {}
        self._hook = AttentionHook(
            denoiser,
            self.family,
            {name: functools.partial(self._record, site) for name, site in self._sites.items()},
            self._sites,
            read_timestep=True,
        )

    @contextmanager
    def recording(self) -> Iterator[FrameMassRecorder]:
        """Record every denoiser call made inside."""
        with self._hook, torch.no_grad():
            yield self

    def _record(self, site: Site, call: AttentionCall) -> torch.Tensor:
        timestep = self._hook.state.timestep
        if timestep is None:
            raise InputError(f"the denoiser call around site {site.name} has no timestep")
        if timestep != self._timestep:
            self._keep()
            self._timestep = timestep
        batch = call.query.shape[0]
        output, mass = attention_with_mass(call, self.rows, self._generator)
        mass = mass.double() * batch
        if site.name in self._running:
            total, weight = self._running[site.name]
            self._require_frames(site.name, total, mass)
            self._running[site.name] = (total.add_(mass), weight + batch)
        else:
            self._running[site.name] = (mass, batch)
        return output

    def _keep(self) -> None:
        """Add what the last timestep's calls gave, which waits on the device until here, to the sums on the CPU."""
        if self._timestep is None:
            return
        for name, (waiting, weight) in self._running.items():
            mass = waiting.cpu()
            if not torch.isfinite(mass).all():
                raise InputError(
                    f"site {name} computed numbers that are not finite at step {self._step_of(name)} (timestep "
                    f"{self._timestep:g}): its inputs or weights hold NaN, or overflow in half precision; save or "
                    f"download the model again, or give it in fp32"
                )
            total, before = self._sums[name].get(self._timestep, (torch.zeros_like(mass), 0))
            self._require_frames(name, total, mass)
            self._sums[name][self._timestep] = (total + mass, before + weight)
        self._running.clear()

    def _step_of(self, name: str) -> int:
        """Number of the current timestep among those that a site saw, from 1 on."""
        seen = [*self._sums[name]]
        return 1 + (seen.index(self._timestep) if self._timestep in seen else len(seen))

    @staticmethod
    def _require_frames(name: str, before: torch.Tensor, now: torch.Tensor) -> None:
        if before.shape != now.shape:
            raise InputError(
                f"site {name} saw {now.shape[1]} frames after {before.shape[1]}: "
                f"calibrate all prompts with one number of frames"
            )

    def result(self, **metadata: str) -> Calibration:
        """What was recorded.

        Raises:
            InputError: a site never ran, or sites saw different timesteps.
        """
        self._keep()
        silent = [name for name, sums in self._sums.items() if not sums]
        if silent:
            raise InputError(
                f"{len(silent)} of {len(self._sums)} sites never ran during calibration, the first is {silent[0]}: "
                f"generate with the whole denoiser, at least one step"
            )
        steps = {name: tuple(sums) for name, sums in self._sums.items()}
        timesteps = next(iter(steps.values()))
        odd = [name for name, seen in steps.items() if seen != timesteps]
        if odd:
            raise InputError(f"site {odd[0]} saw other timesteps than {next(iter(steps))}: it runs conditionally")
        return Calibration(
            family=self.family.name,
            timesteps=timesteps,
            sites={name: SiteInfo(site.layout, site.heads) for name, site in self._sites.items()},
            mass={
                name: torch.stack([total / weight for total, weight in sums.values()]).float()
                for name, sums in self._sums.items()
            },
            grid=self._hook.state.grid,
            metadata={**metadata, "rows": str(self.rows or "all")},
        )


def calibrate(
    denoiser: nn.Module,
    denoise: Callable[[], None],
    rows: int | None = None,
    seed: int = 0,
    sites: SiteKind = "temporal",
    **metadata: str,
) -> Calibration:
    """Measure frame mass while ``denoise`` runs the denoiser, through a pipeline or alone.

    Args:
        denoiser: the dense denoiser that ``denoise`` calls.
        denoise: runs one or more whole generations.
        rows: sample this many query tokens per frame; ``None`` measures all.
        seed: of the sampling.
        sites: which kind of sites, see ``Family.find_sites``.
        metadata: recorded in the calibration, for provenance.

    Returns:
        Frame mass ``t h f (f+1)`` (float32) of every site: the share of attention that head h gives at timestep t from
        the tokens of a frame to those of every frame, and to text (last).

    Raises:
        UnknownFamilyError: the denoiser's class is not supported.
        InputError: a site never ran, or cannot be measured.

    Examples:
        >>> from f3prune.testing import TINY_SHAPES, tiny_denoiser
        >>> latte = tiny_denoiser("latte")
        >>> measured = calibrate(latte, lambda: denoise_synthetic(latte, TINY_SHAPES["latte"], steps=2))
        >>> mass = measured.mass["temporal_transformer_blocks.0.attn1"]
        >>> steps, heads, frames, keys = mass.shape
        >>> steps, keys == frames + 1, bool(torch.allclose(mass.sum(-1), torch.ones(())))
        (2, True, True)
    """
    recorder = FrameMassRecorder(denoiser, rows=rows, seed=seed, sites=sites)
    with recorder.recording():
        denoise()
    return recorder.result(**metadata)


def denoise_synthetic(
    denoiser: nn.Module,
    shape: LatentShape,
    steps: int,
    seed: int = 0,
    batch: int = 1,
    on_step: Callable[[int], None] | None = None,
) -> None:
    """Run a denoiser that has no pipeline on seeded normal latents and embeddings, at ``steps`` timesteps.

    The trajectory is not a generation: it measures structure and cost, not quality.

    Args:
        denoiser: a denoiser of a supported family.
        shape: latent frames, height and width.
        steps: number of timesteps, spread evenly over the family's schedule.
        seed, batch: of the inputs.
        on_step: called with the index of each finished step.
    """
    family = family_of(denoiser)
    for index, timestep in enumerate(torch.linspace(*family.timestep_range, steps).tolist()):
        inputs = family.synthetic_inputs(denoiser, shape, batch, torch.Generator("cpu").manual_seed(seed + index))
        if "timestep" in inputs:
            whole = not inputs["timestep"].is_floating_point()
            inputs["timestep"] = torch.full_like(inputs["timestep"], round(timestep) if whole else timestep)
        with torch.no_grad():
            denoiser(**inputs, return_dict=False)
        if on_step is not None:
            on_step(index)
