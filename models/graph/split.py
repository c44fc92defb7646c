"""A gradient graph split behind its first convolution, and behind the pooling that follows it.

    x --stem--> s --first block--> c --ahead--> kept values
                                   c ---------> logits, taps, at the two ends of a path
                                   kept, w_* --back--> gradient at c
    gradient at s --return--> gradient at x

The stem is linear (a convolution), so along a straight path s is a blend of its two ends, and the
mean over the path of the input gradients is the return of the mean gradient at s: each is computed
once a path, not once a point. `ahead` reads no weights of a goal, so goals share it. The first
block is ReLU and a max pooling without overlap, whose two directions are cheap in numpy
(models.graph.first_block); where a network has another one, c is s.

`split` says None for a network that is not built this way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models.graph.slices import Node, Whole

INPUT, LOGITS = "x", "logits"
_IDLE = ("Identity",)
_RETURNS = ("ConvTranspose", "Conv")


@dataclass(frozen=True)
class Split:
    """Names of the values at the cuts. kept: what `back` reads of `ahead`. window: of the first
    block's pooling; None: there is no first block, c is s. taps: that lie behind c."""

    stem: str
    cut: str
    kept: tuple[str, ...]
    at_cut: str
    at_stem: str
    window: tuple[int, ...] | None
    taps: tuple[str, ...]


def split(whole: Whole, taps: Sequence[str]) -> Split | None:
    """Where to split the joined graph of a classifier and its gradients; taps: all of them."""
    if not whole.plain:
        return None
    conv = _stem(whole)
    back = _return(whole)
    if conv is None or back is None:
        return None
    stem, at_stem = conv.outputs[0], back.inputs[0]
    weights = [f"w_{name}" for name in (LOGITS, *taps)]
    cut, at_cut, window = stem, at_stem, None
    first = _first_block(whole, stem, at_stem)
    if first is not None:
        cut, at_cut, window = first
    late = whole.reached([cut])
    behind = tuple(tap for tap in taps if tap in late)
    backward = whole.reached(weights)
    nodes = whole.behind([at_cut], [cut])
    # The way back must start from the weights and from what lies behind the cut alone.
    kept = {
        i
        for n in nodes
        if backward.intersection(n.outputs)
        for i in n.inputs
        if i and i not in backward and i not in whole.weights
    }
    if LOGITS not in late or at_cut not in backward or not kept <= late | _constants(whole):
        return None
    needed = {i for n in nodes for i in n.inputs}
    if needed & set(whole.inputs) - set(weights):
        return None
    if not needed & set(weights) <= {f"w_{t}" for t in (LOGITS, *behind)}:
        return None
    order = [o for n in whole.nodes for o in n.outputs]
    kept = kept & late
    return Split(stem, cut, tuple(sorted(kept, key=order.index)), at_cut, at_stem, window, behind)


def _stem(whole: Whole) -> Node | None:
    """The one convolution that reads the input, with a kernel that is fixed."""
    name = INPUT
    while True:
        users = whole.users(name)
        if len(users) != 1:
            return None
        node = users[0]
        if node.op == "Conv" and node.inputs[0] == name:
            return node if all(i in whole.weights for i in node.inputs[1:]) else None
        if node.op not in _IDLE:
            return None
        name = node.outputs[0]


def _return(whole: Whole) -> Node | None:
    """The convolution that gives the input's gradient."""
    node = whole.producer("grad_input")
    while node is not None and node.op in _IDLE:
        node = whole.producer(node.inputs[0])
    if node is None or node.op not in _RETURNS:
        return None
    return node if all(i in whole.weights for i in node.inputs[1:]) else None


def _first_block(whole: Whole, stem: str, at_stem: str) -> tuple[str, str, tuple[int, ...]] | None:
    """(value behind the pooling, gradient there, window) where s goes through ReLU and pooling.

    Beside them the block's own map may only be averaged, as a tap, and be an output.
    """
    relu = next(iter(whole.users(stem)), None)
    if len(whole.users(stem)) != 1 or relu is None or relu.op != "Relu":
        return None
    held = relu.outputs[0]
    users = whole.users(held)
    pools = [n for n in users if n.op == "MaxPool"]
    if len(pools) != 1 or any(
        n.op not in ("MaxPool", "Sign", "ReduceMean", "Shape", "Identity") for n in users
    ):
        return None
    pool = pools[0]
    window = pool.numbers.get("kernel_shape", ())
    fits = (
        len(pool.outputs) == 2
        and pool.numbers.get("strides") == window
        and not any(pool.numbers.get("pads", ()))
        and not any(d != 1 for d in pool.numbers.get("dilations", ()))
        and not any(pool.numbers.get("ceil_mode", ()))
        and not any(pool.numbers.get("storage_order", ()))
    )
    if not fits or len(window) != 3:
        return None
    indices = pool.outputs[1]
    unpools = whole.users(indices)
    if len(unpools) != 1 or unpools[0].op != "MaxUnpool":
        return None
    # Back: unpooled, perhaps plus the tap's own weight, times the sign of the block's map.
    total = whole.producer(at_stem)
    if total is None or total.op != "Mul":
        return None
    slope, sign = total.inputs
    sign_node = whole.producer(sign)
    if sign_node is None or sign_node.op != "Sign" or sign_node.inputs[0] != held:
        return None
    added = whole.producer(slope)
    if added is not None and added.op == "Add":
        unpooled = unpools[0].outputs[0]
        others = [i for i in added.inputs if i != unpooled]
        if len(others) != 1 or set(map(id, whole.behind(others, []))) & {id(unpools[0])}:
            return None
        if whole.reached([INPUT]) & set(others):
            return None
    elif added is not unpools[0]:
        return None
    return pool.outputs[0], unpools[0].inputs[0], window


def _constants(whole: Whole) -> set[str]:
    """Values that depend on nothing given."""
    moving = whole.reached(list(whole.inputs))
    return {o for n in whole.nodes for o in n.outputs if o not in moving}
