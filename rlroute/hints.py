"""What kernels tell the processor and the compiler beside what is to be done; results are the same without."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np


def prefetch(array: np.ndarray, row: int, column: int) -> None:
    """Asks for the memory of an element that is read soon, and goes on at once. Uncompiled it does nothing.

    A log is larger than the processor's caches: in a loop over many slots the waits for it overlap. `column` counts
    where the array has one.
    """


def index(number: int) -> int:
    """`number`, with the promise that it is an index from 0 up: compiled code then does not look for negative ones."""
    return number


def sized(array: np.ndarray, size: int) -> None:
    """The promise that the last axis of an array has `size` elements, a constant perhaps, see `rlroute.jit.bind`.

    Uncompiled it is checked. Compiled code relies on it: what a broken promise leads to is undefined. It belongs in the
    kernel that is bound, for in one that this calls the compiler makes little of it.
    """
    assert array.shape[-1] == size, f"the last axis of {array.shape} is not {size}"


@functools.cache
def compiled_hint(hint: Callable[..., Any]) -> Any:
    """What numba takes in place of a hint."""
    from numba.extending import intrinsic

    return intrinsic({prefetch: _prefetch, index: _index, sized: _sized}[hint])


def _prefetch(_: Any, array: Any, row: Any, column: Any) -> Any:
    """An instruction of the processor."""
    from llvmlite import ir
    from numba import types as kinds
    from numba.core import cgutils

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        table = context.make_array(kind)(context, builder, arguments[0])
        place = [context.cast(builder, arguments[k], signature.args[k], kinds.intp) for k in (1, 2)]
        address = cgutils.get_item_pointer(context, builder, kind, table, place[: kind.ndim], wraparound=False)
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        ask = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        asked = cgutils.get_or_insert_function(builder.module, ask, "llvm.prefetch.p0i8")
        read, near, data = (ir.Constant(number, flag) for flag in (0, 3, 1))
        builder.call(asked, [builder.bitcast(address, byte), read, near, data])
        return context.get_dummy_value()

    return kinds.void(array, row, column), generate


def _index(_: Any, number: Any) -> Any:
    """An assumption of the compiler's."""
    from numba import types as kinds

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = context.cast(builder, arguments[0], signature.args[0], kinds.int64)
        _assume(builder, builder.icmp_unsigned("<", value, value.type(LARGEST)))
        return value

    return kinds.int64(number), generate


def _sized(_: Any, array: Any, size: Any) -> Any:
    """An assumption of the compiler's."""
    from numba import types as kinds
    from numba.core import cgutils

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        table = context.make_array(kind)(context, builder, arguments[0])
        last = cgutils.unpack_tuple(builder, table.shape, kind.ndim)[-1]
        known = context.cast(builder, arguments[1], signature.args[1], kinds.intp)
        _assume(builder, builder.icmp_signed("==", last, known))
        return context.get_dummy_value()

    return kinds.void(array, size), generate


def _assume(builder: Any, condition: Any) -> None:
    from llvmlite import ir
    from numba.core import cgutils

    promise = ir.FunctionType(ir.VoidType(), [ir.IntType(1)])
    builder.call(cgutils.get_or_insert_function(builder.module, promise, "llvm.assume"), [condition])


HINTS = (prefetch, index, sized)
LARGEST = 2**40  # more than any array has elements
