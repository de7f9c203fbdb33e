"""Arguments are held against their annotations where a person calls: one line says which is of another kind.

``@checked`` stands on public functions and constructors, not on what solvers call in their loops. Annotations say the
kind alone; ranges, and what arguments have to do with one another, each function checks itself.
"""

import collections.abc
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from fluvial.checks import require_dense

F = TypeVar("F", bound=Callable[..., Any])
_LARGEST_WHOLE = 2**63
_LONGEST_TEXT = 4096  # that of a path
_ARRAYS = (Tensor, np.ndarray)


def checked(called: F) -> F:
    """Decorator of a function or class: its arguments must be of the kinds that their annotations name.

    Tensors are dense, and have the type and the number of axes of a jaxtyping annotation; whole numbers lie between
    -2^63 and 2^63; a bool is no number. What has no simple kind, such as ``Any``, is let through.

    Args:
        called: What is to be called; of a class, the constructor.

    Returns:
        The same, with the checks before it.

    Raises:
        TypeError: In a call, if an argument is of another kind, or its numbers are; the message names it.
        ValueError: In a call, if a tensor has another number of axes or no values, or a whole number is too large.

    Example:
        >>> @checked
        ... def double(times: int) -> int:
        ...     return 2 * times
        >>> double("3")
        Traceback (most recent call last):
        TypeError: times must be a whole number, got '3'
    """
    if isinstance(called, type):
        called.__init__ = checked(called.__init__)  # type: ignore[misc]
        return called
    order = tuple(inspect.signature(called).parameters)

    @functools.wraps(called)
    def call(*arguments: Any, **named: Any) -> Any:
        kinds = _kinds(called)
        # Numbers of numpy become Python's, which JSON, generators and messages know.
        arguments = tuple(value.item() if isinstance(value, np.generic) else value for value in arguments)
        named = {name: value.item() if isinstance(value, np.generic) else value for name, value in named.items()}
        for name, value in (*zip(order, arguments, strict=False), *named.items()):
            if name in kinds:
                kinds[name].require(name, value)
        return called(*arguments, **named)

    return typing.cast(F, call)


@dataclass(frozen=True)
class Kind:
    """What an argument may be.

    Args:
        words: What is expected, for messages.
        admits: Whether a value is of the kind.
        arrays: The jaxtyping annotations of tensors and arrays, which have a type and a number of axes as well.
    """

    words: str
    admits: Callable[[Any], bool]
    arrays: tuple[Any, ...] = ()

    def require(self, name: str, value: Any) -> None:
        """Refuse a value of another kind.

        Raises:
            TypeError: If it is, or its numbers are; the argument is named.
            ValueError: If it is a tensor of another number of axes, a whole number that is too large or a text that is
                too long.
        """
        if not self.admits(value):
            raise TypeError(f"{name} must be {self.words}, got {_shown(value)}")
        if isinstance(value, Tensor):
            require_dense(name, value)
        if isinstance(value, str) and len(value) > _LONGEST_TEXT:
            raise ValueError(f"{name} must have at most {_LONGEST_TEXT} characters, got {len(value)}")
        if isinstance(value, int) and abs(value) >= _LARGEST_WHOLE:
            raise ValueError(f"{name} must lie between -2^63 and 2^63, got a number of {value.bit_length()} bits")
        if self.arrays and isinstance(value, _ARRAYS):
            self._require_form(name, value)

    def _require_form(self, name: str, value: Any) -> None:
        first = self.arrays[0]
        if not any(_has_dtype(value, one) for one in self.arrays):
            what = "floating point" if _is_float(first) else "whole"
            raise TypeError(f"{name} must hold {what} numbers, got {value.dtype}")
        if not any(_has_axes(value, one) for one in self.arrays):
            axes = ", ".join(first.dim_str.split())
            raise ValueError(f"{name} must have shape ({axes}), got {tuple(value.shape)}")


def _has_dtype(value: Any, annotation: Any) -> bool:
    allowed = annotation.dtypes
    return not isinstance(allowed, list | tuple) or str(value.dtype).split(".")[-1] in allowed


def _has_axes(value: Any, annotation: Any) -> bool:
    """Whether a tensor has as many axes as a jaxtyping annotation; their names and lengths play no part."""
    axes = annotation.dim_str.split()
    several = [axis for axis in axes if axis.startswith("*") or axis == "..."]
    fixed = len(axes) - len(several)
    return bool(value.ndim >= fixed if several else value.ndim == fixed)


def _is_float(annotation: Any) -> bool:
    return isinstance(annotation.dtypes, list | tuple) and any("float" in dtype for dtype in annotation.dtypes)


@functools.cache
def _kinds(called: Callable[..., Any]) -> dict[str, Kind]:
    """The kind of each argument that has a simple one; found at the first call, when all modules are there."""
    scope = vars(sys.modules[called.__module__]) if called.__module__ in sys.modules else {}
    scope = getattr(inspect.unwrap(called), "__globals__", scope) | {}
    found = {}
    for name, parameter in inspect.signature(called).parameters.items():
        annotation = parameter.annotation
        if annotation is parameter.empty or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        kind = _kind(_resolved(annotation, scope))
        if kind is not None:
            found[name] = kind
    return found


def _resolved(annotation: Any, scope: dict[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, scope)  # the annotations of this package, as typing.get_type_hints reads them
    except (NameError, AttributeError):  # imported for type checkers alone
        return Any


def _kind(annotation: Any) -> Kind | None:
    """The kind that an annotation names; None where anything goes."""
    if annotation is Any:
        return None
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        kinds = [_kind(one) for one in inner]
        if any(kind is None for kind in kinds):
            return None
        known = [kind for kind in kinds if kind is not None]
        words = list(dict.fromkeys(kind.words for kind in known))
        arrays = tuple(one for kind in known for one in kind.arrays)
        plain = any(kind.admits is _is_tensor and not kind.arrays for kind in known)
        return Kind(
            " or ".join(words), lambda value: any(kind.admits(value) for kind in known), () if plain else arrays
        )
    if origin is typing.Literal:
        return Kind(f"one of {', '.join(map(repr, inner))}", lambda value: type(value) in map(type, inner))
    if annotation in _SIMPLE:
        return _SIMPLE[annotation]
    if hasattr(annotation, "array_type") and hasattr(annotation, "dim_str"):
        array = annotation.array_type
        return Kind(
            "a tensor" if array is Tensor else "an array", lambda value: isinstance(value, array), (annotation,)
        )
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return _sequence(inner[0] if inner else Any)
    is_protocol = getattr(annotation, "_is_protocol", False)
    if origin is collections.abc.Callable or (is_protocol and "__call__" in vars(annotation)):
        return Kind("callable", callable)
    if isinstance(origin, type):
        name = origin.__name__.lower()
        return Kind(f"a {name}", lambda value: isinstance(value, origin) and not isinstance(value, str))
    told = not is_protocol or getattr(annotation, "_is_runtime_protocol", False)
    if isinstance(annotation, type) and told and annotation is not object:
        return Kind(f"a {annotation.__name__}", lambda value: isinstance(value, annotation))
    return None


def _sequence(element: Any) -> Kind:
    one = _kind(element)
    words = "a sequence" if one is None else f"a sequence of {_PLURALS.get(one.words, f'which each is {one.words}')}"

    def admits(value: Any) -> bool:
        # Longer ones are data rather than settings, and are looked at where they are used.
        return (
            isinstance(value, Sequence)
            and not isinstance(value, str | bytes)
            and (one is None or all(one.admits(part) and _is_bounded(part) for part in value[:100]))
        )

    return Kind(words, admits)


_PLURALS = {f"a {word}": f"{word}s" for word in ("number", "whole number", "string", "tensor", "generator")}


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_bounded(value: Any) -> bool:
    return not isinstance(value, int) or abs(value) < _LARGEST_WHOLE


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


_SIMPLE: dict[Any, Kind] = {
    int: Kind("a whole number", _is_whole),
    float: Kind("a number", _is_number),
    bool: Kind("True or False", lambda value: isinstance(value, bool | np.bool_)),
    str: Kind("a string", lambda value: isinstance(value, str)),
    None: Kind("None", lambda value: value is None),
    type(None): Kind("None", lambda value: value is None),
    Tensor: Kind("a tensor", _is_tensor),
    np.ndarray: Kind("an array", lambda value: isinstance(value, np.ndarray)),
    torch.Generator: Kind("a torch.Generator", lambda value: isinstance(value, torch.Generator)),
    torch.device: Kind("a device", lambda value: isinstance(value, torch.device)),
    torch.dtype: Kind("a torch.dtype", lambda value: isinstance(value, torch.dtype)),
}


def _shown(value: Any) -> str:
    """A value in an error: itself if it is short, else its type."""
    if value is None or isinstance(value, bool | int | float | complex | str):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:50]}... ({type(value).__name__} of {len(text)} characters)"
    return type(value).__name__
