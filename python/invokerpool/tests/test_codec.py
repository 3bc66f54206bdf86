"""The native encoding, and what it leaves to pickle."""

import datetime
import decimal
import math

import numpy as np
import pytest

from invokerpool import _core

NATIVE, PICKLED = 0, 1


def kind_and_value(value):
    encoded, decoded = _core.roundtrip(value)
    return encoded[0], decoded


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -128,
        127,
        128,
        -(2**63),
        2**63 - 1,
        1.5,
        -math.inf,
        "",
        "text é 𝄞",
        "x" * 300,
        b"",
        b"\x00\xff" * 200,
        (),
        (1,),
        (1, 2),
        tuple(range(300)),
        [],
        [1, [2, [3]]],
        {},
        {"a": (1, None), 2: [True], (1, "b"): 2.5},
    ],
)
def test_plain_values_are_native_and_equal(value):
    kind, decoded = kind_and_value(value)
    assert kind == NATIVE
    assert decoded == value
    assert type(decoded) is type(value)


def test_nan_and_negative_zero_are_kept():
    _, (nan, zero) = kind_and_value((math.nan, -0.0))
    assert math.isnan(nan)
    assert math.copysign(1, zero) == -1


@pytest.mark.parametrize("dtype", "? b h i l q B H I L Q e f d F D".split())
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 4), (2, 0, 5), (2, 3, 4)])
def test_arrays_are_native_and_equal(dtype, shape):
    array = np.arange(math.prod(shape)).astype(dtype).reshape(shape)
    kind, decoded = kind_and_value(("x", array))
    assert kind == NATIVE
    assert decoded[1].dtype == array.dtype
    assert decoded[1].shape == shape
    assert decoded[1].flags.writeable
    np.testing.assert_array_equal(decoded[1], array)


def test_large_arrays_are_views_of_what_was_received():
    array = np.arange(100_000, dtype="f4")
    kind, (first, second) = kind_and_value((array, array[::-1].copy()))
    assert kind == NATIVE
    assert type(first.base).__name__ == "Memory"
    assert first.base is second.base
    assert first.ctypes.data % 16 == 0 and second.ctypes.data % 16 == 0
    np.testing.assert_array_equal(first, array)
    np.testing.assert_array_equal(second, array[::-1])
    first[0] = 7
    del first
    np.testing.assert_array_equal(second, array[::-1])


@pytest.mark.parametrize("scalar", [np.float64(1.5), np.int32(-7), np.bool_(True), np.complex64(1 + 2j)])
def test_scalars_of_numpy_keep_their_type(scalar):
    kind, decoded = kind_and_value(scalar)
    assert kind == NATIVE
    assert type(decoded) is type(scalar)
    assert decoded == scalar


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">i4"),
        np.arange(12).reshape(3, 4)[:, ::2],
        np.asfortranarray(np.arange(12).reshape(3, 4)),
        np.array(["a", "bc"]),
        np.array([1, "a", None], dtype=object),
        np.array(["2026-01-01"], dtype="M8[D]"),
        np.zeros(3, dtype=[("a", "i4"), ("b", "f8")]),
        np.arange(3).astype("g"),
        np.ma.masked_array([1, 2], mask=[0, 1]),
    ],
)
def test_other_arrays_are_pickled_and_equal(array):
    kind, decoded = kind_and_value(array)
    assert kind == PICKLED
    assert type(decoded) is type(array)
    assert decoded.dtype == array.dtype
    assert decoded.flags.f_contiguous == array.flags.f_contiguous
    assert decoded.tolist() == array.tolist()


class Point(tuple):
    """A subclass: not only its value."""


@pytest.mark.parametrize(
    "value",
    [
        2**63,
        -(2**63) - 1,
        "\ud800",
        {1, 2},
        decimal.Decimal("1.5"),
        datetime.date(2026, 1, 1),
        Point((1, 2)),
        [1, Point((1, 2))],
        1 + 2j,
        range(3),
    ],
)
def test_other_values_are_pickled_and_equal(value):
    kind, decoded = kind_and_value(value)
    assert kind == PICKLED
    assert decoded == value
    assert type(decoded) is type(value)


def test_cycles_and_deep_nesting_are_left_to_pickle():
    cycle = [1]
    cycle.append(cycle)
    kind, decoded = kind_and_value(cycle)
    assert kind == PICKLED
    assert decoded[1] is decoded
    deep = 1
    for _ in range(30):
        deep = [deep]
    assert kind_and_value(deep) == (NATIVE, deep)
    for _ in range(100):
        deep = [deep]
    assert kind_and_value(deep) == (PICKLED, deep)


def test_functions_of_main_are_pickled_by_value():
    kind, decoded = kind_and_value(lambda n: n + 1)
    assert kind == PICKLED
    assert decoded(1) == 2


def test_what_cannot_be_pickled_says_so():
    with pytest.raises(TypeError, match="pickle"):
        _core.roundtrip((n for n in range(3)))
