"""The gRPC server around a core that can be held: full queues, deadlines, clients that leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from models.errors import BundleError, InputError, LensError, NotFound, TooLarge, Unavailable
from services.common.settings import Settings
from services.inference.core import Core
from services.inference.grpc_errors import code_of
from services.inference.grpc_server import grpc_server
from services.inference.oip_codec import InferRequest, InferResponse
from services.inference.shared_memory import NotOffered
from tests.support.front_server import free_port

CODE = grpc.StatusCode


class HeldFleet:
    """Two places."""

    def __init__(self) -> None:
        self.settings = Settings(_env_file=None, sessions=1, queue=1)
        self.admitted = 0
        self.most = 0
        self.ready = True

    @contextmanager
    def admit(self) -> Iterator[None]:
        if self.admitted >= 2:
            raise Unavailable("the inference queue is full", code="queue_full", retry_after=3)
        self.admitted += 1
        self.most = max(self.most, self.admitted)
        try:
            yield
        finally:
            self.admitted -= 1


class HeldCore(Core):
    """Answers once `go` is set, or raises `fault`."""

    def __init__(self) -> None:
        super().__init__(HeldFleet())  # type: ignore[arg-type]
        self.go = asyncio.Event()
        self.asked: list[InferRequest] = []
        self.fault: Exception | None = None

    async def host(self, model: str, version: str) -> Any:
        return None

    async def answer(self, model: str, version: str, request: InferRequest) -> InferResponse:
        self.asked.append(request)
        await self.go.wait()
        if self.fault is not None:
            raise self.fault
        return InferResponse(model, "b-1", {"y": request.inputs["x"]}, id=request.id)


@asynccontextmanager
async def _serving(**more: Any) -> AsyncIterator[tuple[HeldCore, Any]]:
    core = HeldCore()
    settings = Settings(_env_file=None, grpc_port=free_port(), sessions=1, queue=1, **more)
    async with (
        grpc_server(core, settings) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield core, service_pb2_grpc.GRPCInferenceServiceStub(channel)


def _request(label: str = "", **parameters: int) -> Any:
    message = pb.ModelInferRequest(model_name="m", id=label)
    message.inputs.add(name="x", datatype="FP32", shape=[2])
    message.raw_input_contents.append(np.array([1, 2], np.float32).tobytes())
    for key, value in parameters.items():
        message.parameters[key].int64_param = value
    return message


async def _until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_full_queue_says_when_to_come_back() -> None:
    async def run() -> None:
        async with _serving() as (core, stub):
            first = [stub.ModelInfer(_request()) for _ in range(2)]
            await _until(lambda: len(core.asked) == 2)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(_request())
            assert caught.value.code() is CODE.RESOURCE_EXHAUSTED
            assert caught.value.details() == "the inference queue is full"
            trailing = dict(caught.value.trailing_metadata())
            assert trailing["retry-after"] == "3"
            assert trailing["grpc-retry-pushback-ms"] == "3000"
            core.go.set()
            await asyncio.gather(*first)
            assert (await stub.ModelInfer(_request("after"))).id == "after"

    asyncio.run(run())


def test_a_client_that_leaves_gives_its_place_back() -> None:
    async def run() -> None:
        async with _serving() as (core, stub):
            calls = [stub.ModelInfer(_request()) for _ in range(2)]
            await _until(lambda: core.fleet.admitted == 2)
            for call in calls:
                call.cancel()
            await _until(lambda: core.fleet.admitted == 0)

            async def requests() -> AsyncIterator[Any]:
                for _ in range(5):
                    yield _request()

            stream = stub.ModelStreamInfer(requests())
            await _until(lambda: core.fleet.admitted == 2)
            stream.cancel()
            await _until(lambda: core.fleet.admitted == 0)

    asyncio.run(run())


def test_the_deadline_goes_with_the_request() -> None:
    async def run() -> None:
        async with _serving() as (core, stub):
            core.go.set()
            await stub.ModelInfer(_request())
            await stub.ModelInfer(_request(), timeout=20)
            await stub.ModelInfer(_request(timeout=5_000), timeout=20)
            await stub.ModelInfer(_request(timeout=500_000_000), timeout=20)
            found = [dict(r.parameters).get("timeout") for r in core.asked]
            assert found[0] is None
            assert found[2] == 5_000
            for microseconds in (found[1], found[3]):
                assert 1_000_000 < microseconds < 21_000_000  # gRPC rounds it up on its way
            core.go.clear()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(_request(), timeout=0.1)
            assert caught.value.code() is CODE.DEADLINE_EXCEEDED
            await _until(lambda: core.fleet.admitted == 0)

    asyncio.run(run())


def test_a_stream_is_held_back_not_piled_up() -> None:
    """Two under way, whatever is sent; all are answered, in order, beside another client."""

    async def run() -> None:
        async with _serving() as (core, stub):
            sent = 0

            async def requests() -> AsyncIterator[Any]:
                nonlocal sent
                for index in range(30):
                    sent += 1
                    yield _request(str(index))

            other = stub.ModelInfer(_request("other"))
            await _until(lambda: len(core.asked) == 1)
            stream = stub.ModelStreamInfer(requests())
            await _until(lambda: len(core.asked) == 2)
            await asyncio.sleep(0.2)
            assert len(core.asked) == 2
            assert core.fleet.most == 2
            core.go.set()
            found = [answer async for answer in stream]
            assert (await other).id == "other"
            assert [a.infer_response.id for a in found] == [str(i) for i in range(30)]
            assert not any(a.error_message for a in found)
            assert sent == 30
            assert core.fleet.most <= 2

    asyncio.run(run())


def test_at_the_end_what_is_under_way_is_answered() -> None:
    async def run() -> None:
        core = HeldCore()
        settings = Settings(_env_file=None, grpc_port=free_port())
        server = grpc_server(core, settings)
        port = await server.__aenter__()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            call = stub.ModelInfer(_request("last"))
            await _until(lambda: core.asked)
            end = asyncio.create_task(server.__aexit__(None, None, None))
            await asyncio.sleep(0.1)
            assert not end.done()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(_request("late"))
            assert caught.value.code() is CODE.UNAVAILABLE
            core.go.set()
            assert (await call).id == "last"
            await end

    asyncio.run(run())


@pytest.mark.parametrize(
    ("fault", "code", "line"),
    [
        (TooLarge("too many rows", field="x"), CODE.RESOURCE_EXHAUSTED, "x: too many rows"),
        (NotFound("no such\nversion"), CODE.NOT_FOUND, "no such version"),
        (BundleError("off"), CODE.INTERNAL, "off"),
        (RuntimeError("a secret"), CODE.INTERNAL, "something went wrong inside"),
    ],
)
def test_faults_of_the_core(
    fault: Exception, code: Any, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with _serving() as (core, stub):
            core.go.set()
            core.fault = fault
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(_request())
            assert caught.value.code() is code
            assert caught.value.details().startswith(line)

            async def requests() -> AsyncIterator[Any]:
                yield _request("7")

            (answer,) = [a async for a in stub.ModelStreamInfer(requests())]
            assert answer.error_message == caught.value.details()
            assert answer.infer_response.id == "7"

    asyncio.run(run())
    assert ("a secret" in caplog.text) == isinstance(fault, RuntimeError)


def test_every_error_has_a_code() -> None:
    def status(number: int) -> LensError:
        error = InputError("x")
        error.status = number
        return error

    assert code_of(InputError("x")) is CODE.INVALID_ARGUMENT
    assert code_of(Unavailable("x")) is CODE.UNAVAILABLE
    assert code_of(Unavailable("x", code="queue_full")) is CODE.RESOURCE_EXHAUSTED
    assert code_of(NotOffered("x")) is CODE.UNIMPLEMENTED
    assert code_of(status(429)) is CODE.RESOURCE_EXHAUSTED
    assert code_of(status(504)) is CODE.DEADLINE_EXCEEDED
    assert code_of(status(418)) is CODE.INTERNAL


def test_a_port_in_use_is_one_line() -> None:
    async def run() -> None:
        async with _serving() as (core, _):
            port = free_port()
            settings = Settings(_env_file=None, grpc_port=port)
            async with grpc_server(core, settings):
                with pytest.raises(LensError, match="cannot listen") as caught:
                    async with grpc_server(core, settings):
                        pass
            assert caught.value.field == "LESIONLENS_GRPC_PORT"

    asyncio.run(run())
