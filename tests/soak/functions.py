"""Wrong arguments for every public function: each call ends with a result, or with an error that names the argument.

    .venv/bin/python tests/soak/functions.py --count 5000 --seed 0 --json

A call starts from one that is valid (functions_table.py) and changes one argument: shape, type, device, emptiness,
layout, values that are not finite, numbers out of range, things of another kind. What is checked:

* the call returns, with numbers that are finite where all that it was given is; or raises ValueError or TypeError (or
  ImportError, for an extra) with a message that names an argument;
* it does so within ten seconds, and prints nothing;
* NaN comes out of NaN only where the documentation says so.

Alpha, sigma and their rates are arithmetic that solvers call in their loops: their arguments are not checked, and
torch's own errors count as an answer.
"""

import argparse
import contextlib
import dataclasses
import inspect
import io
import json
import math
import random
import re
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from functions_table import Valid, calls
from torch import Tensor

LIMIT = 10
"""Seconds that a call may take."""

Change = tuple[str, Callable[[Any], Any]]

_TENSORS: tuple[Change, ...] = (
    ("None", lambda x: None),
    ("list", lambda x: x.tolist()),
    ("array", lambda x: x.numpy()),
    ("text", lambda x: "x"),
    ("number", lambda x: 0.5),
    ("int64", lambda x: x.long()),
    ("bool", lambda x: x > 0),
    ("complex", lambda x: x.to(torch.complex64)),
    ("float16", lambda x: x.half()),
    ("bfloat16", lambda x: x.bfloat16()),
    ("float64", lambda x: x.double()),
    ("meta", lambda x: x.to("meta")),
    ("no rows", lambda x: x[:0] if x.ndim else x),
    ("no columns", lambda x: x[..., :0] if x.ndim else x),
    ("one row", lambda x: x[:1] if x.ndim else x),
    ("fewer rows", lambda x: x[:-1] if x.ndim else x),
    ("more columns", lambda x: torch.cat([x, x], -1) if x.ndim else x),
    ("another axis", lambda x: x[None]),
    ("axis behind", lambda x: x[..., None]),
    ("an axis less", lambda x: x[0] if x.ndim else x),
    ("0-d", lambda x: x.flatten()[0]),
    ("strided", lambda x: torch.stack([x, x], -1)[..., 0]),
    ("NaN", lambda x: _with(x, math.nan)),
    ("infinity", lambda x: _with(x, math.inf)),
    ("all equal", lambda x: torch.ones_like(x)),
    ("negative", lambda x: -x.abs() - 5 if x.dtype != torch.bool else x),
    ("large", lambda x: x * 1000 if x.dtype != torch.bool else x),
    ("needs gradient", lambda x: x.detach().clone().requires_grad_() if x.is_floating_point() else x),
    ("sparse", lambda x: x.to_sparse()),
)
_ARRAYS: tuple[Change, ...] = (
    ("None", lambda x: None),
    ("text", lambda x: "x"),
    ("objects", lambda x: x.astype(object)),
    ("texts", lambda x: x.astype(str)),
    ("complex", lambda x: x.astype(complex)),
    ("empty", lambda x: x[:0]),
    ("one", lambda x: x[:1]),
    ("another axis", lambda x: x[None]),
    ("an axis less", lambda x: x[0]),
    ("fewer", lambda x: x[:-1]),
    ("NaN", lambda x: np.where(np.arange(x.size).reshape(x.shape) == 0, np.nan, x)),
    ("infinity", lambda x: np.where(np.arange(x.size).reshape(x.shape) == 0, np.inf, x)),
    ("all equal", lambda x: np.ones_like(x)),
    ("strided", lambda x: np.asfortranarray(x)),
    ("tensor", lambda x: torch.as_tensor(x)),
    ("list", lambda x: x.tolist()),
)


def _same(value: Any) -> Change:
    return (repr(value)[:40], lambda _: value)


_INTS = tuple(map(_same, (0, -1, 1, 2, -(2**70), 2**63, 1.5, math.nan, math.inf, True, "3", None, [3], (2, 2), 1j)))
_INTS += (
    ("0-d tensor", lambda x: torch.tensor(x)),
    ("numpy", lambda x: np.int64(x)),
    ("vector", lambda x: torch.ones(2)),
)
_FLOATS = tuple(
    map(_same, (0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e308, 5e-324, 2, "x", None, True, 1j, [0.5]))
)
_FLOATS += (
    ("0-d tensor", lambda x: torch.tensor(x)),
    ("numpy", lambda x: np.float64(x)),
    ("vector", lambda x: torch.ones(3)),
)
_STRINGS = tuple(map(_same, ("", "x", "\0", "a\nb", "x" * 10_000, None, 3, b"exact", ["x"], 0.5)))
_SEQUENCES: tuple[Change, ...] = (
    *map(_same, ((), [], None, "x", 3, ("a",), (math.nan,), (-1,), (0,), (1.5, 0.5), (0.5, 0.5), (2**70,), ((1, 2),))),
    ("tensor", lambda x: torch.as_tensor(x)),
    ("array", lambda x: np.asarray(x)),
    ("reversed", lambda x: x[::-1]),
    ("longer", lambda x: [*x, *x]),
)
_OTHERS = tuple(map(_same, (None, "x", 3, 0.5, [], object(), torch.ones(2), lambda *a, **k: None, {})))
_OTHERS += (
    ("numbers", lambda _: lambda *a, **k: 1.0),
    ("wrong shape", lambda _: lambda x, *a, **k: x[:1, :1] if isinstance(x, Tensor) else x),
)


def _with(x: Tensor, value: float) -> Tensor:
    if not x.is_floating_point():
        return x
    x = x.clone()
    x.view(-1)[0] = value
    return x


def changes_of(value: Any) -> tuple[Change, ...]:
    """What may be put in the place of a valid argument."""
    kinds: tuple[tuple[Any, tuple[Change, ...]], ...] = (
        (Tensor, _TENSORS),
        (np.ndarray, _ARRAYS),
        (bool, (*map(_same, ("x", 3, [])),)),
        (int, _INTS),
        (float, _FLOATS),
        (str, _STRINGS),
        (Sequence, _SEQUENCES),
    )
    return next((changes for kind, changes in kinds if isinstance(value, kind)), _OTHERS)


class Slow(BaseException):
    """A call did not end in time."""


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raises Slow in the block after so many seconds."""

    def stop(_signum: int, _frame: object) -> None:
        raise Slow

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def problem_of(call: Valid, name: str, change: Change) -> tuple[str, str]:
    """Makes one call; what is wrong with the outcome, empty if nothing, and what the outcome was."""
    arguments = dict(call.arguments())
    try:
        arguments[name] = change[1](arguments[name])
    except Exception:  # a change that this value does not admit, such as reversing one number
        return "", "left out"
    text = io.StringIO()
    try:
        with time_limit(LIMIT), warnings.catch_warnings(), contextlib.redirect_stdout(text):
            warnings.simplefilter("ignore")
            result = call.function(**arguments)
    except (ValueError, TypeError, ImportError) as error:
        if call.hot or name in _OF_SKLEARN:
            return "", "refused"
        return _problem_of_error(error, list(arguments)), "refused"
    except Slow:
        return f"took more than {LIMIT} s", "slow"
    except BaseException as error:
        if call.hot and isinstance(error, _OF_TORCH):
            return "", "refused"
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:160]!r} at {where.filename[-40:]}:{where.lineno}", "crashed"
    if text.getvalue():
        return f"printed {text.getvalue()[:60]!r}", "returned"
    bad_given = not all(map(_finite, arguments.values()))
    if call.hot or _finite(result, call.infinite and not bad_given):
        return "", "returned"
    if bad_given and call.flows:
        return ("" if says_of_nan(call.documented or call.function) else "NaN or infinity, undocumented"), "returned"
    return ("NaN or infinity from arguments that are not finite" if bad_given else "NaN or infinity"), "returned"


_OF_SKLEARN = ("X", "random_state")
"""Arguments that scikit-learn checks, whose users know its messages."""
_OF_TORCH = (RuntimeError, AttributeError, NotImplementedError, IndexError)
_FOREIGN = r"must be Tensor, not|unsupported operand|argument '|expected Tensor|not supported between|invalid comb"
_ALSO_CALLED = {
    "cond": ("labels", "label", "a log-prior"),
    "present": ("present of shape",),
    "mask": ("mask of shape",),
    "value": ("value of shape",),
    "x0": ("x",),
    "x1": ("x",),
    "train": ("x", "support"),
    "shape": ("x", "x0"),
    "data": ("features", "support"),
    "model": ("field",),
    "time_scale": ("scale",),
    "spec": ("data set",),
    "tasks": ("task family",),
    "name": ("task family", "extractor"),
}
"""What messages may call an argument instead: what it holds, or its name in the function that it is handed to."""
_FOLLOWS = (
    *("must", "has", "have", "holds?", "is", "are", "in", "and", "or", "needs?", "was", "cannot", "does", "lies?"),
    *("says", "takes?", "would", "leaves", "on", "of", "returns", "below", "inside"),
)


def names_argument(message: str, names: Sequence[str]) -> bool:
    """Whether a message speaks of one of the arguments as such: ``x must ...``, ``t and r ...``, ``'x'`` or ``x=3``."""
    said, follows = "|".join(map(re.escape, names)), "|".join(_FOLLOWS)
    after = rf"['\"]?(?: (?:{follows})\b| ?=| \(|[:,)\[])| ?['\"]| -?\d|$"
    return re.search(rf"(?:^|[\s'\"(])(?:{said})(?:{after})", message) is not None


def _problem_of_error(error: Exception, names: Sequence[str]) -> str:
    message = str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    if "\n" in message.strip():
        return f"{type(error).__name__} of several lines: {message[:120]!r}"
    if len(message) > 5000:  # a path may have 4096
        return f"{type(error).__name__} of {len(message)} characters"
    own = "/fluvial/" in where.filename and not re.search(_FOREIGN, message)
    also = [other for name in names for other in _ALSO_CALLED.get(name, ())]
    if own and (names_argument(message, [*names, *also]) or isinstance(error, ImportError)):
        return ""
    return f"{type(error).__name__}: {message[:160]!r} at {where.filename[-40:]}:{where.lineno}"


def says_of_nan(called: object) -> bool:
    """Whether the documentation of a function, of its class, module or package says what becomes of NaN."""
    called = inspect.unwrap(getattr(called, "__func__", called))  # type: ignore[arg-type]
    places: list[Any] = [called, type(called)]
    name = getattr(called, "__module__", "")
    owner = getattr(called, "__qualname__", "").rpartition(".")[0]
    places.append(getattr(sys.modules.get(name), owner, None) if owner else None)
    while name.startswith("fluvial."):
        places.append(sys.modules.get(name))
        name = name.rpartition(".")[0]
    return any("NaN" in (getattr(place, "__doc__", None) or "") for place in places)


def _finite(value: Any, infinite: bool = False) -> bool:
    """Whether all numbers in a value are finite, or may be infinite but not NaN, as far as it can be seen."""
    if isinstance(value, Tensor):
        if value.device.type == "meta" or value.is_sparse:
            return True
        return bool((~value.detach().isnan() if infinite else value.detach().isfinite()).all())
    if isinstance(value, np.ndarray):
        return value.dtype.kind not in "fc" or bool(np.isfinite(value).all())
    if isinstance(value, float | complex):
        return bool(np.isfinite(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and "NaN" not in (value.__doc__ or ""):
        return all(_finite(getattr(value, field.name), infinite) for field in dataclasses.fields(value))
    if isinstance(value, Mapping | tuple | list):
        return all(_finite(one, infinite) for one in (value.values() if isinstance(value, Mapping) else value))
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the calls and prints the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=5000, help="number of calls; all there are, if fewer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="calls whose name begins like this")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    options = parser.parse_args(argv)
    torch.manual_seed(options.seed)
    start = told = time.monotonic()
    table = [call for call in calls() if call.name.startswith(options.only)]
    failures = _valid_ones(table)
    cases = [
        (call, name, change)
        for call in table
        for name, value in call.arguments().items()
        for change in changes_of(value)
    ]
    random.Random(options.seed).shuffle(cases)
    counts: Counter[str] = Counter()
    for number, (call, name, change) in enumerate(cases[: options.count]):
        problem, outcome = problem_of(call, name, change)
        counts[outcome] += 1
        if problem:
            failures.append(f"{call.name}({name}: {change[0]}): {problem}")
            print(f"failed: {failures[-1]}", file=sys.stderr)
        if time.monotonic() - told > 5:
            told = time.monotonic()
            rate = (number + 1) / (told - start)
            left = (min(len(cases), options.count) - number) / rate
            print(
                f"{number + 1}/{min(len(cases), options.count)} calls, {rate:.0f}/s, {left:.0f} s left", file=sys.stderr
            )
    record = {
        "program": "functions",
        "functions": len(table),
        "calls": sum(counts.values()) - counts["left out"],
        **{key: counts[key] for key in ("returned", "refused", "crashed", "slow")},
        "failures": len(failures),
        "failed": failures[:100],
        "seed": options.seed,
        "seconds": round(time.monotonic() - start, 1),
    }
    print(json.dumps(record) if options.json else "\n".join(f"{key}: {value}" for key, value in record.items()))
    return 1 if failures else 0


def _valid_ones(table: Sequence[Valid]) -> list[str]:
    """Calls of the table that fail as they are."""
    failures = []
    for call in table:
        problem, outcome = problem_of(call, next(iter(call.arguments())), ("valid", lambda value: value))
        if problem or (outcome != "returned" and not call.refused):
            failures.append(f"{call.name} as it is: {outcome} {problem}")
            print(f"failed: {failures[-1]}", file=sys.stderr)
    return failures


if __name__ == "__main__":
    raise SystemExit(main())
