"""Several numbers at once in compiled loops, and several threads.

`Lanes` are what fits 64 bytes, one or more of a machine's vector registers. LLVM makes vectors of a plain
loop, but keeps sums of a matrix product in memory, at half of the machine's speed; sums that are lanes stay
in registers. Numba keeps machine code that holds what stands here until the file of its function changes, so
that file keeps a digest of this one.
"""

# Numba's and llvmlite's classes and decorators have no types; a first argument is Numba's context.
# mypy: disable-error-code="no-untyped-call, no-untyped-def, untyped-decorator, misc, no-any-return"

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

__all__ = [
    "BYTES",
    "add",
    "address",
    "beyond",
    "fetch",
    "finish_streams",
    "keep_until_here",
    "load",
    "multiply_add",
    "store",
    "stream",
    "take_turn",
    "together",
    "width",
    "zeros",
]

BYTES = 64
# Sums of products may be rounded once, as each machine does fastest.
_FUSED = ("contract",)


class Lanes(types.Type):
    """Numbers of one dtype; variables of compiled functions alone have this type."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        number = manager.lookup(lanes.dtype).get_value_type()
        super().__init__(manager, lanes, ir.VectorType(number, BYTES * 8 // lanes.dtype.bitwidth))


@intrinsic
def address(_, array):
    """Return where an array's numbers begin, to index by numbers that are not negative.

    Unlike an array it is counted by nobody: where a function is compiled into another, counting who holds an
    array takes longer than a short product. What it belongs to has to live on.
    """

    def generate(context, builder, signature, arguments):
        return context.make_array(signature.args[0])(context, builder, arguments[0]).data

    return types.CPointer(array.dtype)(array), generate  # type: ignore[attr-defined]


@intrinsic
def keep_until_here(_, array):
    """Let an array live until this is reached, for those who use its address."""
    return types.void(array), lambda context, *_: context.get_dummy_value()


@intrinsic
def beyond(_, numbers, count):
    """Return an address so many numbers further on."""
    return numbers(numbers, count), lambda _, builder, __, given: builder.gep(given[0], [given[1]])


@intrinsic
def width(_, numbers):
    """Return how many numbers are lanes."""
    count = BYTES * 8 // numbers.dtype.bitwidth
    return types.uint64(numbers), lambda context, *_: context.get_constant(types.uint64, count)


@intrinsic
def zeros(_, numbers):
    """Return lanes of 0, of the dtype of the numbers at an address."""
    lanes = Lanes(numbers.dtype)
    return lanes(numbers), lambda context, *_: context.get_constant_null(lanes)


@intrinsic
def fetch(_, numbers, place):
    """Ask for what lies around a number to be brought into the cache, and go on."""

    def generate(context, builder, _, arguments):
        pointer, whole = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, whole, whole, whole])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        at = builder.bitcast(builder.gep(arguments[0], [arguments[1]]), pointer)
        builder.call(prefetch, [at, *(ir.Constant(whole, n) for n in (0, 3, 1))])  # to read, often, data
        return context.get_dummy_value()

    return types.void(numbers, place), generate


@intrinsic
def load(_, numbers, first):
    """Return numbers at an address, beginning with the ``first``."""

    def generate(context, builder, signature, arguments):
        kind = context.get_value_type(signature.return_type).as_pointer()
        place = builder.bitcast(builder.gep(arguments[0], [arguments[1]]), kind)
        return builder.load(place, align=_align(numbers))

    return Lanes(numbers.dtype)(numbers, first), generate


@intrinsic
def store(_, numbers, first, lanes):
    """Write lanes to an address, beginning with the ``first`` number."""

    def generate(context, builder, _, arguments):
        value = arguments[2]
        place = builder.bitcast(builder.gep(arguments[0], [arguments[1]]), value.type.as_pointer())
        builder.store(value, place, align=_align(numbers))
        return context.get_dummy_value()

    return types.void(numbers, first, lanes), generate


@intrinsic
def stream(_, numbers, first, lanes):
    """Write lanes to an address that is a multiple of `BYTES`, past the cache: memory is not read first.

    Others see them after `finish_streams`.
    """

    def generate(context, builder, _, arguments):
        value = arguments[2]
        place = builder.bitcast(builder.gep(arguments[0], [arguments[1]]), value.type.as_pointer())
        written = builder.store(value, place, align=BYTES)
        said = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        written.set_metadata("nontemporal", said)
        return context.get_dummy_value()

    return types.void(numbers, first, lanes), generate


@intrinsic
def finish_streams(_):
    """Wait until all that was written by `stream` is seen by other threads."""

    def generate(context, builder, *_):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def take_turn(_, turns):
    """Return the whole number at an address and add 1 to it: no two threads are given the same."""

    def generate(context, builder, signature, arguments):
        one = context.get_constant(signature.return_type, 1)
        return builder.atomic_rmw("add", arguments[0], one, "monotonic")

    return turns.dtype(turns), generate


@intrinsic
def together(typing, team, function, arguments):
    """Call a compiled function with a tuple of arguments in each thread of a `parallel.Team`; wait for all.

    Return whether none of them failed, as where there is no memory; what the function returns is lost.
    """
    signature = function.get_call_type(typing, tuple(arguments), {})
    pointer, whole, byte = ir.IntType(8).as_pointer(), ir.IntType(32), ir.IntType(8)

    def each_thread(context, module, held):
        """Return what OpenMP calls: a function of one address, of arguments and a mark of failures."""
        found = function.dispatcher.get_compile_result(signature)
        context.add_linking_libs((found.library,))
        name = module.get_unique_name(function.dispatcher.__name__)
        body = ir.Function(module, ir.FunctionType(ir.VoidType(), [pointer]), name)
        body.linkage = "internal"
        inside = ir.IRBuilder(body.append_basic_block())
        values, failed = cgutils.unpack_tuple(
            inside, inside.load(inside.bitcast(body.args[0], held.as_pointer()))
        )
        given = cgutils.unpack_tuple(inside, values)
        status, _ = context.call_internal_no_propagate(inside, found.fndesc, signature, given)
        with cgutils.if_unlikely(inside, status.is_error):
            inside.store(byte(1), failed)
        inside.ret_void()
        return body

    def generate(context, builder, _, given):
        start, threads = cgutils.unpack_tuple(builder, given[0])
        failed = cgutils.alloca_once_value(builder, byte(0))
        held = cgutils.pack_struct(builder, (given[2], failed))
        body = each_thread(context, builder.module, held.type)
        place = builder.bitcast(cgutils.alloca_once_value(builder, held), pointer)
        with builder.if_else(cgutils.is_null(builder, start)) as (alone, many):
            with alone:
                builder.call(body, [place])
            with many:
                kind = ir.FunctionType(ir.VoidType(), [body.type, pointer, whole, whole])
                parallel = builder.inttoptr(start, kind.as_pointer())
                builder.call(parallel, [body, place, builder.trunc(threads, whole), whole(0)])
        return cgutils.is_null(builder, builder.load(failed))

    return types.boolean(team, function, arguments), generate


@intrinsic
def add(_, a, b):
    """Return a + b."""
    return a(a, b), lambda _, builder, __, values: builder.fadd(*values)


@intrinsic
def multiply_add(_, number, lanes, total):
    """Return number lanes + total."""

    def generate(_, builder, __, values):
        one, many, to = values
        nothing, place = ir.Constant(many.type, ir.Undefined), ir.IntType(32)
        first = builder.insert_element(nothing, one, ir.Constant(place, 0))
        everywhere = ir.Constant(ir.VectorType(place, many.type.count), [0] * many.type.count)
        spread = builder.shuffle_vector(first, nothing, everywhere)
        return builder.fadd(builder.fmul(spread, many, flags=_FUSED), to, flags=_FUSED)

    return total(number, lanes, total), generate


def _align(numbers) -> int:
    return numbers.dtype.bitwidth // 8
