"""The remote Model: scores, taps and gradients over Open Inference Protocol v2, binary tensors.

Speaks to our inference service and to any server of the protocol (Triton) that serves the bundle's
two graphs as `classifier` and `gradients`. Recipes (models.recipes) go to ours as one request each;
where a server has no `passes` or `paths`, they are composed from the two graphs. The client library
runs on gevent and belongs to one thread of one process, so each thread, and each process after a
fork, gets a client of its own.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import tritonclient.http as oip
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from models.errors import InputError, LensError, NotFound, TooLarge, Unavailable
from models.model import ModelInfo
from models.recipes import Composed, Draw, Line

CLASSIFIER, GRADIENTS, PASSES, PATHS = "classifier", "gradients", "passes", "paths"
_ERRORS: dict[int, type[LensError]] = {404: NotFound, 413: TooLarge}


# The numbers of an explanation do not depend on whose rows share a run of the graph, and are of
# fp32, whatever the service answers predictions with.
_OURS = {"alone": True, "precision": "fp32"}


class _Lost(Exception):
    """The connection failed; the cause says how."""


class RemoteModel(Composed):
    """models.model.Model over HTTP.

    url: base URL of the service, e.g. http://127.0.0.1:3000. bundle: hash of the bundle that must
    answer; None takes the one that is served at the first call, and stays with it. It is asked for
    as the model's version, or without one where that is not understood (Triton's versions are
    numbers). timeout: seconds for one call. Raises Unavailable where the service is down or busy,
    NotFound (bundle_mismatch) where it has another bundle, InputError where it refuses the tensors.
    """

    def __init__(self, url: str, *, bundle: str | None = None, timeout: float = 60.0) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(
                "not a server address",
                field="inference_url",
                found=url[:80],
                expected="http://host:port",
            )
        port = parts.port or (443 if parts.scheme == "https" else 80)
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self._address = f"{host}:{port}{parts.path.rstrip('/')}"
        self._tls = parts.scheme == "https"
        self._timeout = timeout
        self._bundle = bundle
        self._version = ""
        self._local = threading.local()
        self._info: ModelInfo | None = None
        self._recipes: dict[str, dict[str, Any] | None] = {}

    @property
    def info(self) -> ModelInfo:
        """What the service declares, asked for once."""
        if self._info is None:
            self._info = self._declared()
        return self._info

    def forward(
        self, x: NDArray[np.float32], outputs: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        """As models.model.Model.forward."""
        return self._infer(CLASSIFIER, {"x": x}, list(outputs))

    def gradients(
        self,
        x: NDArray[np.float32],
        weights: Mapping[str, NDArray[np.float32]],
        wanted: Sequence[str] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """As models.model.Model.gradients."""
        lengths = {"logits": len(self.info.classes), **self.info.taps}
        # Every input is sent, since a server of the protocol has no notion of an optional one.
        zeros = {
            f"w_{name}": np.zeros((len(x), length), np.float32) for name, length in lengths.items()
        }
        tensors = {"x": x} | zeros | {f"w_{name}": value for name, value in weights.items()}
        names = [f"grad_{n}" for n in (wanted or ["input", *self.info.taps])]
        found = self._infer(GRADIENTS, tensors, names)
        return {name.removeprefix("grad_"): value for name, value in found.items()}

    def passes(
        self, draw: Draw, outputs: Sequence[str], weights: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        """As models.model.Model.passes."""
        offered = self._offered(PASSES)
        # The server draws by its bundle's recipe; another one is drawn here.
        if (
            offered is None
            or offered.get("preprocessing") != draw.spec.model_dump(mode="json")
            or offered.get("passes") != draw.recipe.model_dump(mode="json")
        ):
            return super().passes(draw, outputs, weights)
        tensors = {"base": draw.base[None]} | {f"w_{k}": w[None] for k, w in weights.items()}
        parameters = {"count": draw.count, "seed": draw.seed, "first": draw.first}
        return self._infer(PASSES, tensors, list(outputs), parameters)

    def paths(
        self, line: Line, weights: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        """As models.model.Model.paths."""
        if self._offered(PATHS) is None:
            return super().paths(line, weights)
        tensors = {"x": line.x[None]} | {f"w_{k}": w for k, w in weights.items()}
        if line.baselines.any():
            tensors["baseline"] = line.baselines
        parameters = {"steps": line.steps, "first": line.first, "count": len(line.points)}
        found = self._infer(PATHS, tensors, ["gradient", "change"], parameters)
        found["change"] = found["change"][:, 0]
        return found

    def _offered(self, model: str) -> dict[str, Any] | None:
        """What the server says of a recipe's model; None where it has none. Asked for once."""
        if model not in self._recipes:
            _ = self.info  # tells the version to ask for
            try:
                self._recipes[model] = self._said(model, self._version)
            except (NotFound, InputError):
                self._recipes[model] = None
        return self._recipes[model]

    def _infer(
        self,
        model: str,
        tensors: Mapping[str, NDArray[np.float32]],
        names: Sequence[str],
        parameters: Mapping[str, int] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        inputs = []
        for name, value in tensors.items():
            array = np.ascontiguousarray(value, dtype=np.float32)
            tensor = oip.InferInput(name, list(array.shape), "FP32")
            inputs.append(tensor.set_data_from_numpy(array, binary_data=True))
        wanted = [oip.InferRequestedOutput(name, binary_data=True) for name in names]
        _ = self.info  # tells the version to ask for
        result = self._call(
            lambda c: c.infer(
                model,
                inputs,
                model_version=self._version,
                outputs=wanted,
                parameters=_OURS | dict(parameters or {}),
            )
        )
        answered = result.get_response().get("parameters", {}).get("bundle")
        if answered is not None and answered != self._bundle:
            self._info = None
            raise _mismatch(answered, self._bundle)
        found = {name: result.as_numpy(name) for name in names}
        absent = [name for name, value in found.items() if value is None]
        if absent:
            raise LensError(
                "the inference service left out an output", code="bad_answer", field=absent[0]
            )
        return {name: np.array(value) for name, value in found.items()}

    def _declared(self) -> ModelInfo:
        """What the wanted bundle declares; remembers how its version is asked for."""
        if self._bundle is None:
            self._bundle = self._asked("").bundle
        found = None
        for version in (self._bundle, ""):
            try:
                info = self._asked(version)
            except (NotFound, InputError):
                if version == "":
                    raise
                continue
            if info.bundle == self._bundle:
                self._version = version
                return info
            found = info.bundle
        raise _mismatch(found, self._bundle)

    def _asked(self, version: str) -> ModelInfo:
        try:
            said = self._said(CLASSIFIER, version)
            return ModelInfo(
                bundle=str(said["bundle"]),
                classes=tuple(said["classes"]),
                phases=tuple(said["phases"]),
                taps={str(k): int(v) for k, v in said["taps"].items()},
                input_shape=tuple(int(n) for n in said["input_shape"]),  # type: ignore[arg-type]
            )
        except (KeyError, TypeError, ValueError):
            raise LensError(
                "the model at this address is not a LesionLens bundle",
                code="bad_answer",
                field=CLASSIFIER,
                expected="parameters bundle, classes, phases, taps, input_shape",
            ) from None

    def _said(self, model: str, version: str) -> dict[str, Any]:
        # The protocol's metadata has no field for free parameters; ours and Triton's `config` do.
        config = self._call(lambda c: c.get_model_config(model, version))
        return {k: json.loads(v["string_value"]) for k, v in config["parameters"].items()}

    def _call(self, ask: Callable[[Any], Any]) -> Any:
        """Ask, and once more on a fresh connection where one that was kept turns out to be dead.

        All calls are pure, so asking twice is harmless.
        """
        kept = self._connected()
        try:
            return self._ask(ask)
        except _Lost as error:
            if kept and not isinstance(error.__cause__, TimeoutError):
                with suppress(_Lost):
                    return self._ask(ask)
            raise Unavailable(
                f"the inference service at {self._address} does not answer "
                f"({type(error.__cause__).__name__})",
                code="inference_unavailable",
            ) from None

    def _ask(self, ask: Callable[[Any], Any]) -> Any:
        try:
            return ask(self._client())
        except InferenceServerException as error:
            raise _translate(error) from None
        except (OSError, HTTPException) as error:  # refused, reset, closed, timed out, no such host
            self._local.client = None
            raise _Lost from error

    def _connected(self) -> bool:
        kept = getattr(self._local, "client", None)
        return kept is not None and kept[0] == os.getpid()

    def _client(self) -> Any:
        if not self._connected():
            client = oip.InferenceServerClient(
                self._address,
                connection_timeout=min(self._timeout, 10.0),
                network_timeout=self._timeout,
                ssl=self._tls,
            )
            self._local.client = (os.getpid(), client)
        return self._local.client[1]


def _mismatch(found: str | None, wanted: str | None) -> NotFound:
    return NotFound(
        "the inference service has another bundle",
        code="bundle_mismatch",
        field="bundle",
        found=found,
        expected=wanted,
    )


def _translate(error: InferenceServerException) -> LensError:
    """An answer that is not 200, as the error that in-process code would have raised."""
    text = str(error.message() or "no reason given").splitlines()[0][:300]
    status = int(error.status()) if str(error.status() or "").isdigit() else 500
    if status in (429, 502, 503, 504):
        return Unavailable(f"the inference service is not ready: {text}", retry_after=2)
    if 400 <= status < 500:
        return _ERRORS.get(status, InputError)(text)
    return LensError(f"the inference service failed: {text}", code="inference_failed")
