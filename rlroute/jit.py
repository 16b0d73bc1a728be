"""Scalar code that numba compiles, and that Python runs as it stands where numba is switched off or missing.

A function marked with `kernel` is plain Python: it can be called, tested and read as such, and importing it loads no
numba. `bind` compiles it, with all kernels that it calls by name, for arguments of given types. Compiled code is kept
on disk under a hash of the sources, so that it is made once a machine (for every set of constants) and never stale.
``RLROUTE_JIT=0`` switches compilation off; results are the same, bit for bit, only slower.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import types
import warnings
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rlroute import hints
from rlroute.cache import cache_root
from rlroute.hints import HINTS, compiled_hint

F = TypeVar("F", bound=Callable[..., Any])
# Kernels allocate nothing, so nothing has to be counted; inlined, they pass their arguments at no cost.
OPTIONS: dict[str, Any] = {"cache": True, "error_model": "numpy", "forceinline": True, "_nrt": False}
COMPILED = cache_root() / "kernels"  # one place for the whole process
_kernels: set[Callable[..., Any]] = set()


def kernel(function: F) -> F:
    """Marks a function of scalars and arrays that compiled code may call; kernels call each other by plain name."""
    _kernels.add(function)
    return function


def records(shape: int | tuple[int, ...], fields: Mapping[str, Any]) -> np.ndarray:
    """An array of zeros with named fields, see `record_type`."""
    return np.zeros(shape, record_type(fields))


def record_type(fields: Mapping[str, Any]) -> np.dtype:
    """The type of elements with named fields, given as {name: type, or (type, shape)}.

    In kernels and out of them ``array[i].name`` is a field of element i, and ``array["name"]`` a view of all of them.
    """
    columns = [(name, *kind) if isinstance(kind, tuple) else (name, kind) for name, kind in fields.items()]
    return np.dtype((np.record, np.dtype(columns, align=True)))


def bind(function: Callable[..., Any], *arguments: Any, constants: bool = False) -> Callable[..., Any]:
    """`function` as a call that is ready for arguments of the types of `arguments`.

    The compiled call does not look at types again: whoever binds it passes arrays of the same kind, dimension, memory
    layout and writability ever after. With `constants` likewise every `int` and `bool` of the tuples has to stay as it
    is, for these are compiled in: loops as long as they say unroll, and what they switch off is not there at all.
    Floats, and all numbers of NumPy's types, may vary.
    """
    if not enabled():
        return functools.partial(_interpret, function)

    dispatcher = _dispatcher(function)
    signature = tuple(_type_of(argument, constants) for argument in arguments)
    dispatcher.compile(signature)
    entry: Callable[..., Any] = dispatcher.overloads[signature].entry_point
    return entry


def _type_of(argument: Any, constants: bool) -> Any:
    """What numba is to know of an argument."""
    import numba
    from numba import types as kinds

    if not (constants and isinstance(argument, tuple)):
        return numba.typeof(argument)
    parts = [kinds.literal(part) if type(part) in (int, bool) else _type_of(part, constants) for part in argument]
    return kinds.NamedTuple(parts, type(argument)) if hasattr(argument, "_fields") else kinds.Tuple(parts)


def enabled() -> bool:
    """Whether kernels are compiled."""
    return os.environ.get("RLROUTE_JIT", "1") != "0" and _numba_is_there()


@functools.cache
def _numba_is_there() -> bool:
    try:
        import numba
    except ImportError:
        warnings.warn("numba is not installed: environments step some hundred times more slowly", stacklevel=3)
        return False
    config: Any = numba.config
    return not config.DISABLE_JIT


def _interpret(function: Callable[..., Any], *arguments: Any) -> Any:
    with np.errstate(all="ignore"):  # hashes are meant to overflow, and compiled code warns of nothing either
        return function(*arguments)


@functools.cache
def _dispatcher(function: Callable[..., Any]) -> Any:
    """A numba dispatcher of `function` whose globals hold dispatchers of the kernels that it calls."""
    import numba

    code, scope = function.__code__, dict(function.__globals__)
    for name, callee in _callees(function).items():
        scope[name] = _dispatcher(callee)
    scope |= {name: compiled_hint(hint) for name, hint in _named(function, HINTS).items()}
    twin = types.FunctionType(code, scope, function.__name__, function.__defaults__)
    twin.__module__, twin.__qualname__ = function.__module__, function.__qualname__
    config: Any = numba.config
    before, config.CACHE_DIR = config.CACHE_DIR, str(COMPILED / _fingerprint(function))
    try:
        return numba.njit(**OPTIONS)(twin)
    finally:
        config.CACHE_DIR = before


def _callees(function: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """The kernels that `function` names, by the names it has for them."""
    return _named(function, _kernels)


def _named(function: Callable[..., Any], among: Container[Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """The functions `among` others that `function` names, by the names it has for them."""
    found = ((name, function.__globals__.get(name)) for name in function.__code__.co_names)
    return {name: callee for name, callee in found if isinstance(callee, types.FunctionType) and callee in among}


def _fingerprint(function: Callable[..., Any]) -> str:
    """Of the sources of `function` and of all that it calls: numba itself looks only at the file of its own."""
    import numba

    seen, new = set(), {function}
    while new:
        seen |= new
        new = {callee for caller in new for callee in _callees(caller).values()} - seen
    digest = hashlib.sha256(numba.__version__.encode())
    for file in sorted({__file__, hints.__file__, *(inspect.getfile(kernel) for kernel in seen)}):
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()[:16]
