"""Check: what export cost against PyTorch, and what pruning cost against the dense model, each apart."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from f3prune.calibration import load_pruned
from f3prune.core.calls import outputs_of
from f3prune.core.captured_calls import CapturedCall
from f3prune.core.manifest import Manifest, package_versions
from f3prune.core.progress import SILENT, Reporter
from f3prune.core.run_directory import RunDirectory
from f3prune.core.tensors import torch_dtype
from f3prune.engines.backends import missing_gpu
from f3prune.engines.check import CheckBounds, CheckReport, Coupling, compare
from f3prune.families import denoiser_component
from f3prune.pipelines.loading import pick_device
from f3prune.pipelines.memory import check_offload, encode_once, give_back, lazy, on_device
from f3prune.steps._state import RunState
from f3prune.steps.build import STEP as BUILD_STEP
from f3prune.steps.export import load_variant
from f3prune.steps.sessions import engine_denoiser, generate_frames, graph_denoiser

Reference = Literal["pruned", "dense"]
FILE = "check.json"


def check(
    run: RunDirectory,
    reference: Reference = "pruned",
    rel_l2: float | None = None,
    reporter: Reporter = SILENT,
    videos: bool = True,
    offload: str = "none",
) -> CheckReport:
    """Compare the engine with PyTorch on the denoiser calls that calibration recorded, and on a whole video.

    Args:
        run: built.
        reference: ``pruned`` asks whether the engine computes what the pruned model does; ``dense`` also measures how
            far the pruned model is from the dense one.
        rel_l2: bound of the relative L2 distance to the reference; None takes the dtype's for ``pruned``, none for
            ``dense``.
        reporter: of progress.
        videos: also let every denoiser generate the video of the first calibration prompt by itself, and compare
            those. A denoiser alone makes none.
        offload: where the weights of denoisers in PyTorch are, see ``f3prune.core.choices.OFFLOADS``. One denoiser at a
            time is in memory whatever it is.

    Returns:
        The report; ``report.require()`` raises ``CheckFailed``. It is kept in the run as ``check.json``.

    Raises:
        ArtifactError: an earlier step is missing, altered or stale.
        BackendError: the engine cannot run here, although there is a GPU. Without one, its graph is compared in ONNX
            Runtime, and the report says so.
        InputError: ``offload`` makes no sense on this machine.
    """
    asked = _Asked(reference, rel_l2, videos)
    state = RunState.of(run)
    built = run.require_current(BUILD_STEP["pruned"])
    recipe = _recipe(state, built, asked)
    run.forget("check")
    report, _ = _measure(state, built, recipe, asked, reporter, offload)
    return report


def check_once(run: RunDirectory, reporter: Reporter = SILENT, offload: str = "none") -> tuple[CheckReport, bool]:
    """Like ``check`` against the dense model, unless the run holds the very same result."""
    asked = _Asked("dense", None, True)
    state = RunState.of(run)
    built = run.require_current(BUILD_STEP["pruned"])
    return _measure(state, built, _recipe(state, built, asked), asked, reporter, offload)


@dataclass(frozen=True)
class _Asked:
    reference: Reference
    rel_l2: float | None
    videos: bool


def _recipe(state: RunState, built: Manifest, asked: _Asked) -> Manifest:
    inputs = {
        "calibrate": state.calibration.digest,
        "pruned": state.run.require_current("pruned").digest,
        BUILD_STEP["pruned"]: built.digest,
    }
    if asked.videos and not state.synthetic:
        inputs["pipeline"] = state.verified_pipeline_digest()
    # What the graph answered here does not count where the engine can run.
    engine_runs = missing_gpu(str(built.facts["backend"])) is None
    options = {**asdict(asked), "engine_runs": engine_runs}
    return Manifest("check", inputs, options, package_versions("torch", "diffusers"))


def _measure(
    state: RunState, built: Manifest, recipe: Manifest, asked: _Asked, reporter: Reporter, offload: str = "none"
) -> tuple[CheckReport, bool]:
    def make(scratch: Path) -> dict[str, Any]:
        report = _compare(state, built, asked, reporter, offload)
        (scratch / FILE).write_text(report.to_json(), encoding="utf-8")
        return {"passed": report.passed, "failures": list(report.failures)}

    _, made = state.run.perform(recipe, make, files=(FILE,))
    return CheckReport.read(state.run.path / FILE), made


def _compare(state: RunState, built: Manifest, asked: _Asked, reporter: Reporter, offload: str) -> CheckReport:
    device = pick_device()
    check_offload(offload, device)
    calls = [CapturedCall(call.timestep, call.on(device, torch.float32)) for call in state.calls()]
    dtype, backend = str(built.facts["dtype"]), str(built.facts["backend"])
    missing = missing_gpu(backend)
    engine_name = f"engine ({backend} {dtype})"
    if missing is not None:
        engine_name = f"graph (onnxruntime, {'bf16 as fp32' if dtype == 'bf16' else dtype})"
        reporter.note(f"the {backend} engine does not run here: {missing}; its graph is checked in onnxruntime instead")
    bounds = CheckBounds.for_export(dtype)
    against_dense = asked.reference == "dense"
    if not against_dense and asked.rel_l2 is not None:
        bounds = CheckBounds(rel_l2=asked.rel_l2)
    if against_dense:
        state.verified_source_digest()
    with_videos = asked.videos and not state.synthetic
    if with_videos:
        state.verified_pipeline_digest()
    in_files = lazy(offload, device)
    one = _OneAtATime(state, calls, device, reporter, with_videos)
    with reporter.task("checking", total=len(calls) * (3 if against_dense else 2)) as advance:
        with engine_denoiser(state) if missing is None else graph_denoiser(state) as engine:
            one.measure("engine", engine, advance)
        del engine
        give_back()
        one.measure("pruned", on_device(pruned_torch(state, None, lazy=in_files), device, offload), advance)
        give_back()
        if against_dense:
            one.measure("dense", on_device(load_variant(state, "dense", 0, 1, lazy=in_files), device, offload), advance)
    names = ("pruned (PyTorch fp32)", engine_name)
    answers, outputs = one.answers, state.family.outputs
    export = compare(
        names,
        answers["pruned"],
        answers["engine"],
        calls,
        bounds,
        _pair(one.videos, "pruned", "engine"),
        outputs=outputs,
    )
    if not against_dense:
        return CheckReport(export, stands_in=missing)
    names = ("dense (PyTorch fp32)", "pruned (PyTorch fp32)")
    price = CheckBounds(rel_l2=asked.rel_l2)
    pruning = compare(
        names, answers["dense"], answers["pruned"], calls, price, _pair(one.videos, "dense", "pruned"), outputs=outputs
    )
    return CheckReport(export, pruning, {name: one.couplings[name] for name in ("dense", "pruned")}, stands_in=missing)


class _OneAtATime:
    """What each denoiser answers, so that no two of them are in memory together.

    Attributes:
        answers: by denoiser, a callable that gives the recorded answers again, in the order of the calls.
        couplings: of the denoisers in PyTorch.
        videos: of the first calibration prompt, ``f h w 3`` in [0, 1], each denoiser on its own.
    """

    def __init__(
        self, state: RunState, calls: Sequence[CapturedCall], device: torch.device, reporter: Reporter, videos: bool
    ) -> None:
        self._state, self._calls, self._device, self._reporter = state, calls, device, reporter
        self._with_videos = videos
        self._pipeline: Any = None
        self._component = ""
        self.answers: dict[str, Callable[..., Any]] = {}
        self.couplings: dict[str, Coupling] = {}
        self.videos: dict[str, torch.Tensor] = {}

    def measure(self, name: str, denoiser: Any, advance: Callable[[], None]) -> None:
        """Everything that is asked of one denoiser."""
        state = self._state
        in_pytorch = name != "engine"
        asked = state.strategy.comparable(denoiser, state.source) if in_pytorch else denoiser
        found = []
        with torch.no_grad():
            for call in self._calls:
                answer = outputs_of(asked(**call.arguments, return_dict=False), state.family.outputs)
                found.append(tuple(tensor.cpu() for tensor in answer.values()))
                advance()
        rest = itertools.cycle(found)
        # Pruned is compared twice, as the reference and as the candidate.
        self.answers[name] = lambda **_: next(rest)
        if in_pytorch:
            middle = self._calls[len(self._calls) // 2].arguments
            self.couplings |= state.strategy.couplings({name: denoiser}, state.family, middle)
        if self._with_videos:
            self._generate(name, denoiser)

    def _generate(self, name: str, denoiser: Any) -> None:
        state = self._state
        if self._pipeline is None:
            self._pipeline = state.strategy.pipeline_with(state.source, denoiser, self._device)
            encode_once(self._pipeline)
            self._component = denoiser_component(self._pipeline)
        setattr(self._pipeline, self._component, denoiser)
        what = "video of the engine" if name == "engine" else f"video of the {name} model in PyTorch"
        frames = generate_frames(self._pipeline, state, state.settings, state.prompts[0], what, self._reporter)
        setattr(self._pipeline, self._component, None)
        self.videos[name] = torch.from_numpy(frames)


def _pair(
    videos: Mapping[str, torch.Tensor], reference: str, candidate: str
) -> tuple[torch.Tensor, torch.Tensor] | None:
    return (videos[reference], videos[candidate]) if videos else None


def pruned_torch(state: RunState, device: torch.device | None, dtype: str = "fp32", lazy: bool = False) -> nn.Module:
    """The pruned denoiser in PyTorch, called like the original; with stages, each call goes to its timestep's."""
    state.run.require("pruned")
    denoiser = load_pruned(state.run.directory("pruned"), torch_dtype(dtype), lazy)
    return denoiser if device is None else denoiser.to(device)
