"""A denoiser that runs on engines, for a diffusers pipeline that does not know."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, Self, cast

import torch
from diffusers import ModelMixin
from torch import nn

from f3prune.core.calls import step_of
from f3prune.core.errors import InputError
from f3prune.engines.denoiser._arguments import ArgumentMap
from f3prune.engines.denoiser._refusals import refusing
from f3prune.engines.denoiser._skeleton import load_skeleton, output_class_of
from f3prune.engines.session import Session
from f3prune.engines.step_reuse import StepMemory, StepReuse
from f3prune.families import known_family

StageSessions = Session | Sequence[tuple[float, Session]] | Callable[[float], Session]


@refusing
class EngineDenoiser(ModelMixin):
    """A denoiser that runs on engines. It stands in for ``pipe.transformer`` or ``pipe.unet``::

        denoiser = EngineDenoiser("run/pruned", session)
        pipe = DiffusionPipeline.from_pretrained(model, transformer=denoiser)  # or: pipe.transformer = denoiser

    Its forward takes what the original class's forward takes and returns what that returns: latents of the same shape,
    such as ``b f c h w`` of CogVideoX. The original class, without weights, answers everything else that a pipeline
    asks (``config``, ``patch_size``, ``add_embedding`` …). Floating inputs are rounded to the engine's dtype, and the
    output goes to the dtype and device of the latents. With ``reuse``, some steps are extrapolated from the outputs of
    earlier ones, and no engine runs for them. Methods that would change weights or modules (adapters, attention
    processors, caches) raise ``InputError`` with what to do instead.
    """

    def __init__(
        self, denoiser: nn.Module | Path | str, sessions: StageSessions, reuse: StepReuse | None = None
    ) -> None:
        """Give the denoiser's configuration and the engine, or one engine per stage.

        Args:
            denoiser: directory of the denoiser's ``config.json``, or a denoiser whose weights are not needed.
            sessions: one session; or ``(lowest timestep, session)`` for each stage, in any order, where a stage serves
                the timesteps from its lowest up to the next stage's; or a function of the timestep.
            reuse: steps to skip, in generations with exactly its timesteps; see ``reuse_steps``.

        Raises:
            ArtifactError: the configuration is missing or unknown.
            InputError: there is no stage, or two start at one timestep.
        """
        super().__init__()
        skeleton = denoiser if isinstance(denoiser, nn.Module) else load_skeleton(denoiser)
        # Kept out of nn.Module's registry: a pipeline that moves its modules must not try to move meta tensors.
        self.__dict__["_skeleton"] = skeleton
        self.original_class = type(skeleton)
        self._output_class = output_class_of(self.original_class)
        family = known_family(self.original_class.__name__)
        self._bare = family is not None and family.bare_output
        self._stages: list[tuple[float, Session]] = []
        self._choose: Callable[[float], Session] | None = None
        if isinstance(sessions, Session):
            self._stages = [(float("-inf"), sessions)]
        elif callable(sessions):
            self._choose = sessions
        else:
            self._stages = sorted(((float(low), session) for low, session in sessions), key=lambda item: -item[0])
            lows = [low for low, _ in self._stages]
            if not lows or len(set(lows)) != len(lows):
                raise InputError(f"stages start at timesteps {lows}: expected at least one, and no two the same")
        self._maps: dict[Session, ArgumentMap] = {}
        self._memory: StepMemory | None
        self.reuse_steps(reuse)
        self._last: Session | None = self._stages[0][1] if self._stages else None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run one step; arguments as for the original class.

        Returns:
            the original's output class, or a tuple when ``return_dict`` is false, with all outputs of the engine.

        Raises:
            InputError: an argument is not what the engine was built for; or skipped steps were chosen for other
                timesteps.
        """
        session = self._any_session()
        arguments = self._map(session).bind(args, kwargs)
        if self._memory is None:
            output = self._compute(session, arguments)
        else:
            output = self._memory(step_of(arguments["timestep"]), lambda: self._compute(session, arguments))
        if arguments.get("return_dict", True):
            names = ("sample", *(spec.name for spec in session.outputs[1:]))
            return self._output_class(**dict(zip(names, output, strict=True)))
        return output[0] if self._bare else output

    def _compute(self, session: Session, arguments: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        if self._choose is not None or len(self._stages) > 1:
            session = self.session_for(step_of(arguments["timestep"]))
            # Past nn.Module's own: this is every step's.
            self.__dict__["_last"] = session
        inputs = self._map(session).inputs(arguments)
        found = session.run(inputs)
        outputs = tuple(found[spec.name] for spec in session.outputs)
        latents = arguments.get("hidden_states", arguments.get("sample"))
        if (
            isinstance(latents, torch.Tensor)
            and (latents.dtype != outputs[0].dtype or latents.device != outputs[0].device)
            and latents.is_floating_point()
        ):
            return tuple(output.to(latents.device, latents.dtype) for output in outputs)
        return outputs

    def reuse_steps(self, reuse: StepReuse | None) -> None:
        """Skip these steps from now on; None computes all, as in the beginning."""
        # Past nn.Module's own, like all state of a step.
        self.__dict__["_memory"] = None if reuse is None else StepMemory(reuse)

    @contextlib.contextmanager
    def every_step(self) -> Iterator[None]:
        """Skip nothing inside: for single calls, which belong to no generation."""
        memory = self._memory
        self.__dict__["_memory"] = None
        try:
            yield
        finally:
            self.__dict__["_memory"] = memory

    def session_for(self, timestep: float) -> Session:
        """The session that serves ``timestep``; timesteps below every stage belong to the last."""
        if self._choose is not None:
            return self._choose(timestep)
        for low, session in self._stages:
            if timestep >= low:
                return session
        return self._stages[-1][1]

    def _any_session(self) -> Session:
        # Only to bind names: every stage has the same forward.
        if self._last is not None:
            return self._last
        if self._stages:
            return self._stages[0][1]
        return self.session_for(0.0)

    def _map(self, session: Session) -> ArgumentMap:
        found = self._maps.get(session)
        if found is None:
            where = f"the engine in {session.directory}"
            found = self._maps[session] = ArgumentMap(
                self.original_class.forward, session.inputs, session.record.constants, where
            )
        return found

    @property
    def skeleton(self) -> nn.Module:
        """The original denoiser without its weights."""
        return cast(nn.Module, self.__dict__["_skeleton"])

    @property
    def dtype(self) -> torch.dtype:
        """What the engine computes in."""
        return self._any_session().outputs[0].torch_dtype

    @property
    def device(self) -> torch.device:
        """Where the engine runs."""
        return self._any_session().device

    @property
    def config(self) -> Any:
        """Configuration of the original denoiser."""
        return self.__dict__["_skeleton"].config

    @contextlib.contextmanager
    def cache_context(self, name: str, **where: Any) -> Iterator[None]:
        """Pipelines mark conditional and unconditional calls with this; each has its own memory of skipped steps."""
        with contextlib.nullcontext() if self._memory is None else self._memory.context(name):
            yield

    def _reset_stateful_cache(self, *args: Any, **kwargs: Any) -> None:
        """diffusers' name for forgetting what is remembered between steps."""
        if self._memory is not None:
            self._memory.reset()

    def save_pretrained(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: an engine has no weights to save.

        Raises:
            InputError: always.
        """
        raise InputError(
            "an engine cannot be saved as a diffusers model: save the pruned denoiser (run/pruned) instead"
        )

    def close(self) -> None:
        """Close every session."""
        for session in {*self._maps, *(session for _, session in self._stages)}:
            session.close()

    def __enter__(self) -> Self:
        for _, session in self._stages:
            session.activate()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "_skeleton" or "_skeleton" not in self.__dict__:
                raise
            return getattr(self.__dict__["_skeleton"], name)
