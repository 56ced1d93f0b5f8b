"""What a model family declares: where its temporal sites are and how their tokens are laid out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from f3prune.core.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import nn

Layout = Literal["temporal", "spatiotemporal", "sparse-causal"]
SiteKind = Literal["temporal", "sparse-causal", "all"]
TextPosition = Literal["none", "before", "after", "around"]


@dataclass(frozen=True)
class TokenGrid:
    """How the video tokens of one denoiser call fall into frames.

    ``frames`` is F, the number of *token* frames (latent frames over the temporal patch size). ``height`` and ``width``
    are those of a frame's tokens at a spatiotemporal site, rows first; temporal sites have one token per frame and
    ignore them. ``references`` token frames stand before those F, in the latents and in the sequence: images that the
    whole video may see. Attention counts them among what stands before the video, as it does text.

    Examples:
        >>> TokenGrid(13, 30, 45).video_tokens
        17550
    """

    frames: int
    height: int = 1
    width: int = 1
    references: int = 0

    @property
    def tokens_per_frame(self) -> int:
        """T = H · W."""
        return self.height * self.width

    @property
    def video_tokens(self) -> int:
        """F · T."""
        return self.frames * self.tokens_per_frame


@dataclass(frozen=True)
class LatentShape:
    """Size of the denoiser's latent video, in latent units (not pixels), as its forward takes it.

    Reference frames before the video (``TokenGrid.references``) are not counted.
    """

    frames: int
    height: int
    width: int


@dataclass(frozen=True)
class Site:
    """One attention module whose tokens come from more than one frame.

    ``outputs`` names the linear layers whose *input columns* are the concatenated heads, each with the column at which
    head 0 starts; names are qualified from the denoiser. ``projections`` are the layers whose *output rows* are heads,
    by role. ``gates`` are layers with one *output row* for every head, whose outputs scale the heads.
    """

    name: str
    layout: Layout
    heads: int
    head_dim: int
    query_key: tuple[str, ...]
    value: tuple[str, ...]
    outputs: tuple[tuple[str, int], ...]
    head_norms: tuple[str, ...] = ()
    heads_attribute: str = "heads"
    gates: tuple[str, ...] = ()


def first_alone(frames: int, temporal: int) -> int:
    """Most autoencoders: the first latent frame is one frame, every other one ``temporal`` frames."""
    return (frames - 1) // temporal * temporal + 1


@dataclass(frozen=True)
class AttentionNames:
    """What a family's attention modules call their parts; the defaults are those of most of diffusers.

    Attributes:
        heads: attribute with the number of heads.
        query_key, value: linear layers whose output rows are heads, query first; those of text beside video last.
        outputs: linear layers whose input columns are the heads.
        norms: norms of queries and keys, which may span heads.
        gates: layers with one output row for every head, whose outputs scale the heads.
    """

    heads: str = "heads"
    query_key: tuple[str, ...] = ("to_q", "to_k", "add_q_proj", "add_k_proj")
    value: tuple[str, ...] = ("to_v", "add_v_proj")
    outputs: tuple[str, ...] = ("to_out.0", "to_add_out")
    norms: tuple[str, ...] = ("norm_q", "norm_k", "norm_added_q", "norm_added_k")
    gates: tuple[str, ...] = ("to_gate_logits",)


@dataclass(frozen=True)
class Family:
    """A model family, declared.

    Attributes:
        name: command-line name, e.g. ``cogvideox``.
        title: what people call it.
        denoiser_class: class name of the denoiser, in diffusers or in ``f3prune.models``.
        layout: of the modules that ``sites`` matches.
        sites: regular expression over qualified module names; a full match is a site.
        sparse_causal: the same for attention of every frame to frame 0 and to the frame before it, sites on request.
            Such a module has ``local_heads``: so many of its last heads attend to their own frame instead.
        token_grid: ``(denoiser, forward arguments by name) -> TokenGrid``; plain ints from shapes and config only.
        default_shape: ``config -> LatentShape``, what the model was made for.
        synthetic_inputs: ``(denoiser, LatentShape, batch, generator) -> forward arguments by name``: seeded normal
            latents and embeddings in the denoiser's dtype, ``timestep`` as the family's pipeline passes it; tensors,
            or the plain ints and floats the forward needs.
        attention: what the sites' modules call their parts.
        text: where text tokens stand in the sequence of a spatiotemporal site; what else every frame may see,
            such as reference and history frames, counts as text.
        tokens_before: ``(denoiser, forward arguments by name) -> tokens`` in front of the video, where they are around.
        latents: name of the forward argument that holds the noisy latents.
        frame_axis: the axis of the latents *and* of the output that runs over frames (or tokens, frames outermost).
        channel_axis: the axis of channels of five-dimensional latents; by default the other one of axes 1 and 2.
        bare_output: with ``return_dict=False`` the denoiser returns its tensor in no tuple.
        outputs: what the denoiser returns, in order, as the fields of its output class are called; the first is the
            denoised video, with the latents' axes.
        returns_text: the site's module returns ``(video, text)`` instead of one tensor.
        norm_across_heads: queries and keys are normalised over all heads together, so q and k rows of a dropped head
            still matter to the others.
        qk_heads_interchangeable: q and k heads may be reordered in the weights (false where rotary embeddings differ
            from head to head).
        padding_asks_nothing: a site's mask hides padded text from keys and from queries. Rows of all other tokens are
            alike, and what a padded query reads is never used: the row of a video token stands for all.
        text_queries: text asks at a site too; false where only video tokens do (CogVideo's temporal channel).
        autoregressive: the model generates token by token and computes frame-local heads itself (``local_heads`` of a
            site's module), because its caches must shrink with them.
        only_path_between_frames: no other module of the denoiser relates frames (temporal convolutions would).
        timestep_range: first and last ``timestep`` of a whole schedule, in the unit in which the pipeline passes it.
        frames_made: ``(frames asked for, frames per latent frame) -> frames`` that the family's pipelines make.
        whole_windows: the pipelines make whole windows, more frames than are asked for whatever number that is.
        pipeline_arguments: ``pipeline -> arguments`` that every call of the pipeline needs beyond its defaults.
        reference_arguments: ``number of reference images -> arguments`` of a pipeline call that has so many.
        unsupported: ``config -> why`` such a denoiser cannot be pruned, as the end of a sentence; None where it can.
        not_batched: tensor arguments whose first axis is not the batch, whatever its length.
        notes: one line for ``f3prune families``.
    """

    name: str
    title: str
    denoiser_class: str
    layout: Layout
    sites: str
    token_grid: Callable[[nn.Module, Mapping[str, Any]], TokenGrid]
    default_shape: Callable[[Mapping[str, Any]], LatentShape]
    synthetic_inputs: Callable[[nn.Module, LatentShape, int, torch.Generator], dict[str, Any]]
    sparse_causal: str = ""
    attention: AttentionNames = AttentionNames()
    text: TextPosition = "none"
    tokens_before: Callable[[nn.Module, Mapping[str, Any]], int] = field(default=lambda denoiser, arguments: 0)
    latents: str = "hidden_states"
    frame_axis: int = 2
    channel_axis: int | None = None
    bare_output: bool = False
    outputs: tuple[str, ...] = ("sample",)
    returns_text: bool = False
    norm_across_heads: bool = False
    qk_heads_interchangeable: bool = True
    padding_asks_nothing: bool = False
    text_queries: bool = True
    autoregressive: bool = False
    only_path_between_frames: bool = True
    timestep_range: tuple[float, float] = (999.0, 1.0)
    frames_made: Callable[[int, int], int] = first_alone
    whole_windows: bool = False
    pipeline_arguments: Callable[[Any], dict[str, Any]] = field(default=lambda pipeline: {})
    reference_arguments: Callable[[int], dict[str, Any]] = field(default=lambda images: {})
    unsupported: Callable[[Mapping[str, Any]], str | None] = field(default=lambda config: None)
    not_batched: tuple[str, ...] = ()
    notes: str = ""

    def find_sites(self, denoiser: nn.Module, kind: SiteKind = "temporal") -> list[Site]:
        """Sites of ``denoiser`` in module order.

        Args:
            denoiser: a model of this family.
            kind: ``temporal`` for those that ``sites`` matches, in whatever layout; ``sparse-causal``; or ``all``.

        Raises:
            InputError: the family has no such sites, the denoiser has no module that matches (its configuration has
                no temporal attention), or its configuration is not supported.
        """
        from f3prune.families._heads import describe_site

        if kind not in get_args(SiteKind):
            raise InputError(f"`sites` is {kind!r}, expected one of {', '.join(get_args(SiteKind))}")
        if kind == "sparse-causal" and not self.sparse_causal:
            raise InputError(f"family {self.name} has no sparse-causal attention: leave `sites='sparse-causal'` out")
        self.require_prunable(getattr(denoiser, "config", {}))
        patterns: dict[Layout, str] = {}
        if kind != "sparse-causal":
            patterns[self.layout] = self.sites
        if kind != "temporal" and self.sparse_causal:
            patterns["sparse-causal"] = self.sparse_causal
        found = [
            describe_site(denoiser, name, module, self, layout)
            for name, module in denoiser.named_modules()
            for layout, pattern in patterns.items()
            if re.fullmatch(pattern, name) and hasattr(module, self.attention.heads)
        ]
        if not found and any("_orig_mod" in name.split(".") for name, _ in denoiser.named_modules()):
            raise InputError(
                "this denoiser is compiled, and its modules are hidden: give the model that torch.compile was given, "
                "which is its _orig_mod, and compile afterwards"
            )
        if not found:
            raise InputError(
                f"{type(denoiser).__name__} has no module matching {' or '.join(patterns.values())!r}: "
                f"its configuration has no temporal attention, so there is nothing to prune"
            )
        return found

    def require_prunable(self, config: Mapping[str, Any]) -> None:
        """Refuse a configuration that cannot be pruned.

        Raises:
            InputError: with the reason.
        """
        if (why := self.unsupported(config)) is not None:
            raise InputError(f"this {self.denoiser_class} cannot be pruned: {why}")

    def channels(self, latents: torch.Tensor) -> int:
        """The axis of channels, of packed tokens ``b n c`` too."""
        if latents.ndim == 3:
            return 2
        return 3 - self.frame_axis if self.channel_axis is None else self.channel_axis

    def frames_first(self, tensor: torch.Tensor, grid: TokenGrid) -> torch.Tensor:
        """View latents or output with frames first: ``… (r + f) p … -> f … p …``, without reference frames."""
        axis = self.frame_axis % tensor.ndim
        first: torch.Tensor = tensor.unflatten(axis, (grid.references + grid.frames, -1)).movedim(axis, 0)
        return first[grid.references :]
