"""The one place where f3prune touches attention.

Every attention of diffusers ends in ``torch.nn.functional.scaled_dot_product_attention``, after projections, norms and
rotary embeddings. While a site's module runs, a ``TorchFunctionMode`` hands that call to the site's handler, together
with the token grid of the running denoiser call. Calibration, masked references and baked pruning are handlers; none
needs a rewritten attention processor, and ``torch.export`` traces through.

Attaching changes the class of the site's module to a generated subclass, so that ``deepcopy``, ``isinstance`` and
``inspect.signature`` keep working; ``detach`` gives the original class back.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from f3prune.core.calls import bind_arguments, step_of
from f3prune.core.errors import InputError
from f3prune.families import Family, Site, TokenGrid

_STATE = "_f3prune_site"


@dataclass(frozen=True)
class AttentionCall:
    """One scaled dot-product attention of a site.

    Attributes:
        site: where it happens.
        query, key, value: ``b h n d``, floating point, after norms and rotary embeddings; ``query`` without the text
            tokens where text does not ask. At a temporal site the batch axis also runs over spatial positions and
            ``n`` is the number of frames. At a sparse-causal site it also runs over frames, innermost; ``query`` has
            the tokens of one frame, ``key`` and ``value`` those of frame 0 and then those of the frame before.
        mask: ``None``, or boolean (true = attend) or additive, broadcastable to ``b h n n``.
        scale: factor of the scores.
        grid: F frames of H × W tokens; 1 × 1 at a temporal site.
        text_before, text_after: text tokens in front of and behind the video tokens.
        text_queries: the text tokens ask, too; else ``query`` holds the video tokens alone.
    """

    site: Site
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    scale: float
    grid: TokenGrid
    text_before: int
    text_after: int
    text_queries: bool = True

    @property
    def frames(self) -> int:
        """F."""
        return self.grid.frames

    @property
    def tokens_per_frame(self) -> int:
        """T = H · W."""
        return self.grid.tokens_per_frame

    @property
    def video_tokens(self) -> int:
        """F · T."""
        return self.grid.video_tokens

    @property
    def video(self) -> slice:
        """Positions of the video tokens in the sequence."""
        return slice(self.text_before, self.text_before + self.video_tokens)

    def dense(self) -> torch.Tensor:
        """The attention as the model meant it: ``b h n d``."""
        return F.scaled_dot_product_attention(
            self.query, self.key, self.value, attn_mask=self.mask, dropout_p=0.0, scale=self.scale
        )


Handler = Callable[[AttentionCall], torch.Tensor]


@dataclass
class CallState:
    """What the running denoiser call tells its sites."""

    grid: TokenGrid | None = None
    before: int = 0
    timestep: float | None = None
    calls: int = 0


class _ReadCall:
    """Forward pre-hook of the denoiser: read the token grid and the timestep off its arguments."""

    def __init__(self, family: Family, state: CallState, read_timestep: bool) -> None:
        self.family = family
        self.state = state
        self.read_timestep = read_timestep

    def __call__(self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arguments = bind_arguments(denoiser, args, kwargs)
        self.state.grid = self.family.token_grid(denoiser, arguments)
        self.state.before = self.family.tokens_before(denoiser, arguments)
        self.state.calls += 1
        if self.read_timestep:
            # A model that generates token by token has no timesteps: all of it is one.
            self.state.timestep = step_of(arguments.get("timestep", 0.0))


class _AttentionMode(TorchFunctionMode):
    def __init__(self, hook: _SiteHook) -> None:
        super().__init__()
        self.hook = hook
        self.seen = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            self.seen += 1
            return self.hook.handle(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class _SiteHook:
    """Turns one site's attention call into an ``AttentionCall`` for its handler."""

    def __init__(self, site: Site, family: Family, state: CallState, handler: Handler) -> None:
        self.site = site
        self.text = family.text
        self.text_queries = family.text_queries
        self.padding_asks_nothing = family.padding_asks_nothing
        self.state = state
        self.handler = handler

    def handle(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        name, grid = self.site.name, self.state.grid
        if grid is None:
            raise InputError(
                f"site {name} ran outside a call of its denoiser: call the denoiser, not one of its blocks"
            )
        sparse = self.site.layout == "sparse-causal"
        asking = key.shape[2] // 2 if sparse else key.shape[2] if self.text_queries else grid.video_tokens
        if is_causal or enable_gqa or query.shape[2] != asking or query.shape[1] != key.shape[1]:
            raise InputError(
                f"site {name} is not plain self-attention (causal={is_causal}, grouped={enable_gqa}, "
                f"q {tuple(query.shape)}, k {tuple(key.shape)}): its family declaration is wrong for this model"
            )
        length = key.shape[2]
        if self.site.layout != "spatiotemporal":
            grid = TokenGrid(grid.frames, 1, asking if sparse else 1)
        text = 0 if sparse else length - grid.video_tokens
        if self.text == "none" and text != 0:
            raise InputError(
                f"site {name} has {length} tokens, expected {grid.frames} frames x {grid.tokens_per_frame}: "
                f"the input size is not one the model was declared for"
            )
        if self.text != "none" and text < (self.state.before if self.text == "around" else 0):
            raise InputError(
                f"site {name} has {length} tokens, fewer than {grid.frames} frames x {grid.tokens_per_frame}"
            )
        before = {"before": text, "around": self.state.before}.get(self.text, 0)
        if self.padding_asks_nothing and attn_mask is not None and attn_mask.shape[-2] > 1:
            attn_mask = attn_mask[..., before : before + 1, :]
        call = AttentionCall(
            site=self.site,
            query=query,
            key=key,
            value=value,
            mask=attn_mask,
            scale=query.shape[-1] ** -0.5 if scale is None else scale,
            grid=grid,
            text_before=before,
            text_after=text - before if self.text in ("after", "around") else 0,
            text_queries=self.text_queries,
        )
        return self.handler(call)


@functools.cache
def _hooked(cls: Any) -> Any:
    """A subclass of the module class ``cls`` whose forward runs under the site's mode."""
    original = cls.forward

    @functools.wraps(original)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        hook: _SiteHook = getattr(self, _STATE)
        mode = _AttentionMode(hook)
        with mode:
            output = original(self, *args, **kwargs)
        if mode.seen == 0:
            raise InputError(
                f"site {hook.site.name} ran without scaled_dot_product_attention, so it would stay dense: "
                f"use the default attention processor and the native attention backend"
            )
        return output

    return type(cls.__name__, (cls,), {"forward": forward, "__module__": cls.__module__, "_f3prune_original": cls})


class AttentionHook:
    """Handlers attached to the sites of one denoiser.

    Use as a context manager for a while, or ``attach`` for good (as a baked model does).

    Args:
        denoiser: a model of ``family``.
        family: its declaration.
        handlers: site name → handler; sites without one stay as they are.
        sites: the sites by name, when the caller knows them better than the module tree does (after baking).
        read_timestep: also read ``timestep`` as a number, which forces a synchronisation on a GPU.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        family: Family,
        handlers: Mapping[str, Handler],
        sites: Mapping[str, Site] | None = None,
        read_timestep: bool = False,
    ) -> None:
        self.denoiser = denoiser
        self.family = family
        self.handlers = dict(handlers)
        self.sites = dict(sites) if sites is not None else {s.name: s for s in family.find_sites(denoiser, "all")}
        self.state = CallState()
        self._hook = _ReadCall(family, self.state, read_timestep)
        self._handle: torch.utils.hooks.RemovableHandle | None = None

    def attach(self) -> AttentionHook:
        """Attach every handler.

        Raises:
            InputError: a site already has a handler.
        """
        for name in self.handlers:
            if hasattr(self.denoiser.get_submodule(name), _STATE):
                raise InputError(f"site {name} already has an attention handler: detach it, or load the dense model")
        self._handle = self.denoiser.register_forward_pre_hook(self._hook, with_kwargs=True)
        for name, handler in self.handlers.items():
            module = self.denoiser.get_submodule(name)
            setattr(module, _STATE, _SiteHook(self.sites[name], self.family, self.state, handler))
            original: Any = type(module)
            module.__class__ = _hooked(original)
        return self

    def detach(self) -> None:
        """Give every module its own class back. Does nothing when not attached."""
        if self._handle is None:
            return
        self._handle.remove()
        self._handle = None
        for name in self.handlers:
            module = self.denoiser.get_submodule(name)
            module.__class__ = type(module)._f3prune_original  # type: ignore[attr-defined]
            delattr(module, _STATE)

    def __enter__(self) -> AttentionHook:
        return self.attach()

    def __exit__(self, *exc: object) -> None:
        self.detach()
