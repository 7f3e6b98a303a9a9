"""What the arguments of `MulT` must be and how they fit together."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal, get_args

from mult.errors import UserError, suggest
from mult.models.attention import LEARNED
from mult.models.decoder import Attention, Skip
from mult.models.encoder import Encoder
from mult.models.pyramid import HEADS, WIDTH

DecoderName = Literal["paper", "released", "pyramid", "fpn"]
"""A wiring of the paper's decoders, shared attention in a feature pyramid, or the plain convolutional decoder (fpn.py)."""
_DEFAULTS = {
    "reference": None,
    "attention": "shared",
    "skip": "none",
    "window_size": 7,
    "num_heads": None,
    "drop_path": 0.0,
}
"""Arguments that some decoder has no use for, with their defaults."""


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        remedy = suggest(str(value), choices, "choose one of them")
        raise UserError(f"model.{name}: got {value!r}; expected {' or '.join(choices)}; {remedy}")


def resolve_reference(tasks: Collection[str], reference: str | None, attention: str, decoder: str, skip: str) -> str | None:
    """The reference: a task, LEARNED, or None where none is needed; a single task is its own.

    Raises UserError for an attention variant, a decoder or a skip that there is not, and for what does not fit together.
    """
    _check_choice("attention", attention, get_args(Attention))
    _check_choice("decoder", decoder, get_args(DecoderName))
    _check_choice("skip", skip, get_args(Skip))
    if not tasks:
        raise UserError("tasks: got none; expected task: output channels; name at least one")
    if decoder == "fpn":
        check_unused(decoder, "attention", reference=reference, attention=attention, skip=skip)
        return None
    if decoder == "pyramid":
        check_unused(decoder, "streams without the finer encoder maps", skip=skip)
    elif attention == "none":
        raise UserError(
            f"model.attention: got none with decoder {decoder}; expected {', '.join(get_args(Attention)[:-1])}; take one "
            "of them, or decoder pyramid, which is a plain one without attention"
        )
    if decoder == "released" and attention == "self":
        raise UserError(
            "model.attention: got self with decoder released; expected shared or independent there; take one of them, or "
            "decoder paper"
        )
    if LEARNED in tasks:
        raise UserError(
            f"tasks: got one of the name {LEARNED!r}, which model.reference means otherwise; expected another; rename it"
        )
    if reference == LEARNED:
        _check_learned(attention, decoder)
        return reference if len(tasks) > 1 else next(iter(tasks))
    if reference is not None and reference not in tasks:
        remedy = suggest(reference, [*tasks, LEARNED], "name one of the model's tasks")
        raise UserError(f"model.reference: got {reference!r}; expected one of {', '.join(tasks)}, or {LEARNED}; {remedy}")
    if reference is None and attention == "shared" and len(tasks) > 1:
        raise UserError(
            f"model.reference: got none; expected one of {', '.join(tasks)}, or {LEARNED}: with attention 'shared' every task "
            "uses the reference's query and key; name one, or take attention 'independent' or 'self'"
        )
    return next(iter(tasks)) if reference is None and len(tasks) == 1 else reference


def _check_learned(attention: str, decoder: str) -> None:
    """Raise UserError where there are no shared maps, or none that could be mixed."""
    if attention != "shared":
        raise UserError(
            f"model.reference: got {LEARNED} with attention {attention}, in which no map is shared; expected attention shared; "
            "take it, or leave model.reference out"
        )
    if decoder == "released":
        raise UserError(
            f"model.reference: got {LEARNED} with decoder released, where half of the maps are made from the reference's own "
            "stream; expected a task there, as a mix of all streams would join the decoders; name one, or take decoder paper"
        )


def check_unused(decoder: str, lacks: str, **arguments: Any) -> None:
    """Raise UserError for an argument that a decoder has no use for, since it `lacks` something, unless it is the default."""
    for name, value in arguments.items():
        default = _DEFAULTS[name]
        if value != default:
            raise UserError(
                f"model.{name}: got {value!r} with decoder {decoder}, which has no {lacks}; expected the default, "
                f"{'null' if default is None else default}; leave it out, or set it to that"
            )


def resolve_num_heads(num_heads: int | Sequence[int] | None, encoder: Encoder) -> list[int]:
    """The decoders' heads a stage, fine to coarse: the argument, else the backbone's own, else at most one for 32 channels."""
    stages = len(encoder.channels)
    if isinstance(num_heads, int):
        heads = [num_heads] * stages
    elif num_heads is None:
        heads = [own or _largest_divisor(c, c // 32) for own, c in zip(encoder.heads, encoder.channels, strict=True)]
    else:
        heads = list(num_heads)
    if len(heads) != stages or any(h < 1 or c % h for h, c in zip(heads, encoder.channels, strict=True)):
        raise UserError(
            f"model.num_heads: got {heads} for channels {encoder.channels} of {encoder.name}; expected {stages} divisors of "
            "them, fine to coarse; set model.num_heads"
        )
    return heads


def resolve_pyramid_heads(num_heads: int | Sequence[int] | None) -> int:
    """The heads of `decoder: pyramid`, whose width is the same at every level and does not depend on the backbone."""
    heads = HEADS if num_heads is None else num_heads
    if not isinstance(heads, int) or heads < 1 or WIDTH % heads:
        raise UserError(
            f"model.num_heads: got {heads} with decoder pyramid; expected one divisor of its width, {WIDTH}; set "
            "model.num_heads"
        )
    return heads


def _largest_divisor(number: int, limit: int) -> int:
    """The largest divisor that is at most `limit`, at least 1."""
    return next((divisor for divisor in range(limit, 1, -1) if number % divisor == 0), 1)
