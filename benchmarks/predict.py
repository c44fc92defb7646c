"""What does serving cost beside the bare model and beside other servers? One file, one payload.

    python -m benchmarks.predict --bundle build/demo/bundle --out build/bench

Rounds of onnxruntime alone (the limit), of the inference service over Open Inference Protocol
(binary body) and of every peer alternate, at 1, 8 and 32 clients; ratios are taken round by round
and their spread is kept. CPU-seconds are those of the serving processes, read from the kernel. Two
networks: the bundle given, and the published one. A network that does nothing shows the server's
own cost. All run on the first two cores that this process may use, the client too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environments import python_of, version_of
from benchmarks.limit import session
from benchmarks.load.closed import Load, client_name
from benchmarks.load.grpc_client import grpc_loop
from benchmarks.machine import conditions, cpu_seconds, pin
from benchmarks.networks import GIVEN, PUBLISHED, Network, facts, given, null, published
from benchmarks.peers.registry import PEERS
from benchmarks.rounds import (
    LIMIT,
    SLICED_LIMIT,
    Measured,
    Way,
    interleaved,
    limit_way,
    ratios,
    served_way,
)
from benchmarks.serving import Served, front_of, peer_of
from benchmarks.spread import spread
from models.bundle.read import Bundle, read_bundle
from services.cli.record import write_record
from services.common.configured import read_settings
from services.common.store import resolve

__all__ = ["spread"]  # the other benchmarks take it from here

OURS, GRPC = "lesionlens", "lesionlens_grpc"
CONCURRENCY = (1, 8, 32)
NULL_CLIENTS = 8
AGREE = 1e-4  # of scores, absolute
Say = Callable[[str], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", help="folder or store tag; default: the latest")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of one turn")
    parser.add_argument("--clients", default="1,8,32", help="concurrencies, by comma")
    parser.add_argument(
        "--only", help=f"servers beside {LIMIT}, by comma: {OURS}, {', '.join(PEERS)}"
    )
    parser.add_argument("--networks", default=f"{GIVEN},{PUBLISHED}", help="by comma")
    parser.add_argument("--no-null", action="store_true", help="leave out the null network")
    options = parser.parse_args()
    bundle = read_bundle(resolve(options.bundle, read_settings()))
    servers = options.only.split(",") if options.only else [OURS, *PEERS]
    unknown = [s for s in servers if s not in (OURS, *PEERS)]
    if unknown or OURS not in servers:
        parser.error(f"--only takes {OURS} and any of {', '.join(PEERS)}")
    networks = options.networks.split(",")
    if not set(networks) <= {GIVEN, PUBLISHED}:
        parser.error(f"--networks takes {GIVEN} and {PUBLISHED}")
    servers, left_out = installed(servers)
    if client_name() != "wrk":
        print("wrk is not installed (apt-get install wrk): the load comes from a client in Python")
    about = conditions(pin(2))
    report = measure(
        bundle,
        options.out,
        servers,
        networks=networks,
        concurrency=[int(c) for c in options.clients.split(",")],
        rounds=options.rounds,
        seconds=options.seconds,
        with_null=not options.no_null,
    )
    report["conditions"] = about | report["conditions"]
    report["left_out"] = left_out
    path = options.out / "predict.json"
    write_record(path, report, made_by="python -m benchmarks.predict", seed=0)
    from benchmarks.plots.predict import draw

    draw(report, path.with_suffix(".png"))
    print(path)


def installed(servers: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The servers whose environments are there or could be made; of the others, why not."""
    left_out: dict[str, str] = {}
    for name in servers:
        if name in PEERS:
            try:
                python_of(PEERS[name])
            except RuntimeError as error:
                left_out[name] = str(error)
                print(f"{name} is left out: {error}", flush=True)
    return [name for name in servers if name not in left_out], left_out


def measure(
    bundle: Bundle,
    out: Path,
    servers: Sequence[str],
    *,
    networks: Sequence[str],
    concurrency: Sequence[int],
    rounds: int,
    seconds: int,
    with_null: bool,
) -> dict[str, Any]:
    """The figures of predict.json. The first network's stand at the top, too."""
    home = Path(out) / "networks"
    makers: dict[str, Callable[[], Network]] = {
        GIVEN: lambda: given(bundle), PUBLISHED: lambda: published(home),
    }  # fmt: skip
    # The shortest part first: what goes wrong then has cost little.
    nothing = null_costs(bundle, home, servers, rounds=rounds, seconds=seconds) if with_null else {}
    by_network: dict[str, Any] = {}
    shares: list[float] = []
    for name in networks:
        network = makers[name]()
        measured, busy = of_network(
            network, servers, concurrency=concurrency, rounds=rounds, seconds=seconds,
            say=partial(said, name),
        )  # fmt: skip
        shares += busy
        by_network[name] = {"network": facts(network)} | figures(measured)
    first = by_network[networks[0]]
    report = {
        "main_network": networks[0],
        "ratios": first["ratios"] | {"fast_variant_vs_fp32": fast_variant(out)},
        "p50_ms": first["p50_ms"],
        "p99_ms": first["p99_ms"],
        "null_model_cpu_ms": nothing.get("cpu_ms", {}),
        "null_model": nothing,
        "networks": by_network,
        "peers": {
            p: {"version": version_of(PEERS[p], python_of(PEERS[p])), "how": PEERS[p].note}
            for p in servers
            if p in PEERS
        },
        "rounds": rounds,
        "seconds_a_turn": seconds,
        "client": client_name(),
        "onnxruntime": version("onnxruntime"),
    }
    report["conditions"] = {"others_cpu_share": round(float(np.median(shares)), 3)}
    return report


def said(name: str, text: str) -> None:
    print(f"{name}: {text}", flush=True)


def of_network(
    network: Network,
    servers: Sequence[str],
    *,
    concurrency: Sequence[int],
    rounds: int,
    seconds: int,
    say: Say,
    more: Callable[[dict[str, Served]], dict[str, Way]] = lambda _: {},
    with_limit: bool = True,
) -> tuple[Measured, list[float]]:
    """All servers up at once, all with the same answer, then the rounds."""
    with ExitStack() as stack:
        up: dict[str, Served] = {}
        for name in servers:
            say(f"starting {name}")
            up[name] = stack.enter_context(
                front_of(network)
                if name == OURS
                else peer_of(PEERS[name], network, python_of(PEERS[name]))
            )
        same_answers(network, up)
        ways: dict[str, Way] = {}
        if with_limit:
            ways = {LIMIT: limit_way(network), SLICED_LIMIT: limit_way(network, slices=True)}
        ways |= {name: served_way(served) for name, served in up.items()} | more(up)
        return interleaved(
            ways, [served.process for served in up.values()],
            concurrency=concurrency, rounds=rounds, seconds=seconds, say=say,
        )  # fmt: skip


def same_answers(network: Network, up: dict[str, Served]) -> None:
    """Every server gives the scores that the bare model gives. Raises RuntimeError."""
    expected = session(network.onnx).run(["scores"], {"x": network.x})[0].ravel()
    for name, served in up.items():
        if served.endpoint is None:
            continue
        found = served.endpoint.ask()
        if found.shape != expected.shape or not np.allclose(found, expected, rtol=0, atol=AGREE):
            raise RuntimeError(f"{name} gives other scores than the bare model")


def figures(measured: Measured) -> dict[str, Any]:
    """One network's part of the report."""
    peers = [name for name in measured if name not in (OURS, LIMIT, SLICED_LIMIT)]
    return {
        "ratios": {
            "throughput_vs_inprocess": ratios(measured, OURS, LIMIT, "rates"),
            # With one client or two the cores are not all busy, and nothing is taken from anybody.
            "throughput_vs_inprocess_less_client": {
                c: found
                for c, found in ratios(measured, OURS, LIMIT, "net_rates").items()
                if int(c) > 2
            },
            "cpu_per_request_vs_inprocess": ratios(measured, OURS, LIMIT, "cpu_ms"),
            # Against the graph as it is served: what the web alone costs.
            "throughput_vs_slices": ratios(measured, OURS, SLICED_LIMIT, "rates"),
            "cpu_per_request_vs_slices": ratios(measured, OURS, SLICED_LIMIT, "cpu_ms"),
            "vs_peer": {name: ratios(measured, OURS, name, "rates") for name in peers},
            "cpu_vs_peer": {name: ratios(measured, OURS, name, "cpu_ms") for name in peers},
        },
        "p50_ms": {str(c): t.figures()["p50_ms"] for c, t in measured[OURS].items()},
        "p99_ms": {str(c): t.figures()["p99_ms"] for c, t in measured[OURS].items()},
        "servers": {
            name: {str(c): turns.figures() for c, turns in by.items()}
            for name, by in measured.items()
        },
    }


def null_costs(
    bundle: Bundle, home: Path, servers: Sequence[str], *, rounds: int, seconds: int
) -> dict[str, Any]:
    """CPU-milliseconds of an answer where the network does nothing: REST, gRPC, and the peers."""
    network = null(bundle, home)

    def grpc(up: dict[str, Served]) -> dict[str, Way]:
        served = up[OURS]
        assert served.grpc_port is not None  # of our service, always
        port = served.grpc_port

        def turn(clients: int, seconds: int) -> tuple[Load, float]:
            before = cpu_seconds([served.process])
            with tempfile.TemporaryDirectory() as folder:
                load = grpc_loop(port, network.x, clients, seconds, Path(folder))
            return load, cpu_seconds([served.process]) - before

        return {GRPC: turn}

    measured, _ = of_network(
        network, servers, concurrency=[NULL_CLIENTS], rounds=rounds, seconds=seconds,
        say=partial(said, "null"), more=grpc, with_limit=False,
    )  # fmt: skip
    seen = {name: by[NULL_CLIENTS].figures() for name, by in measured.items()}
    names = {OURS: "rest_binary", GRPC: "grpc"}
    return {
        "network": facts(network),
        "clients": NULL_CLIENTS,
        "cpu_ms": {names.get(name, name): f["cpu_ms"] for name, f in seen.items()},
        "rate": {names.get(name, name): f["rate"] for name, f in seen.items()},
    }


def fast_variant(out: Path) -> Any:
    """Throughput of the fastest accepted variant over fp32, as benchmarks.variants found it."""
    try:
        found = json.loads((out / "variants.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found.get("ratios", {}).get("fast_variant_vs_fp32")


if __name__ == "__main__":
    main()
