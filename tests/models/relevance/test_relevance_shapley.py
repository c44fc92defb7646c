"""Shapley values against their definition over all orders, and their axioms."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.relevance.shapley import EXACT, shapley


def game(k: int, seed: int):  # type: ignore[no-untyped-def]
    """A game of single effects, interactions of two and a ceiling; two outputs."""
    rng = np.random.default_rng([seed, k])
    single, double = rng.normal(size=(k, 2)), rng.normal(size=(k, k))

    def value(kept):  # type: ignore[no-untyped-def]
        s = kept.astype(float)
        first = s @ single[:, 0] + np.einsum("mi,ij,mj->m", s, double, s)
        return np.stack([first, np.minimum(s @ np.abs(single[:, 1]), 1.0)], axis=1)

    return value


def over_all_orders(value, k: int):  # type: ignore[no-untyped-def]
    total = np.zeros((k, 2))
    orders = list(permutations(range(k)))
    for order in orders:
        kept = np.zeros((1, k), dtype=bool)
        before = value(kept)[0]
        for f in order:
            kept[0, f] = True
            now = value(kept)[0]
            total[f] += now - before
            before = now
    return total / len(orders)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_exact_equals_enumeration_of_all_orders(k: int) -> None:
    value = game(k, 3)
    found = shapley(value, k)
    np.testing.assert_allclose(found.values, over_all_orders(value, k), atol=1e-12)
    assert found.error is None


@given(st.integers(1, 7), st.integers(0, 1000))
def test_shares_add_up_and_a_feature_without_effect_gets_nothing(k: int, seed: int) -> None:
    inner = game(k, seed)
    found = shapley(lambda kept: inner(kept[:, :k]), k + 1)
    np.testing.assert_allclose(
        found.values.sum(axis=0), found.everything - found.nothing, atol=1e-9
    )
    np.testing.assert_allclose(found.values[k], 0.0, atol=1e-12)


def test_no_feature() -> None:
    found = shapley(lambda kept: np.full((len(kept), 2), 4.0), 0)
    assert found.values.shape == (0, 2)
    np.testing.assert_array_equal(found.everything - found.nothing, 0.0)


def test_sampled_agrees_with_exact_within_its_error_and_adds_up() -> None:
    k = EXACT + 2
    inner, seen = game(k, 11), []

    def value(kept):  # type: ignore[no-untyped-def]
        seen.append(len(kept))
        return inner(kept)

    found = shapley(value, k, orders=400, seed=1)
    every = 1 << k
    kept = (np.arange(every)[:, None] >> np.arange(k)) & 1 == 1
    exact = _by_sizes(inner(kept), k)
    assert found.error is not None
    assert (np.abs(found.values - exact) < 5 * found.error + 1e-9).all()
    np.testing.assert_allclose(
        found.values.sum(axis=0), found.everything - found.nothing, atol=1e-9
    )
    assert sum(seen) <= every  # a set that came twice is asked once


def test_same_seed_same_values() -> None:
    value = game(10, 2)
    a, b = (shapley(value, 10, orders=20, seed=5).values for _ in range(2))
    assert a.tobytes() == b.tobytes()
    assert a.tobytes() != shapley(value, 10, orders=20, seed=6).values.tobytes()


def _by_sizes(v, k: int):  # type: ignore[no-untyped-def]
    """The definition by sizes of coalitions, independent of the code: a loop over sets."""
    from math import comb

    out = np.zeros((k, v.shape[1]))
    for f in range(k):
        for s in range(1 << k):
            if not s >> f & 1:
                out[f] += (v[s | 1 << f] - v[s]) / (k * comb(k - 1, s.bit_count()))
    return out
