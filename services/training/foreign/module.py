"""A torch module that was not written here: loaded by its import path, exported with its taps.

The export then goes the way of any foreign ONNX graph; here is what torch alone can tell: the names
and shapes of submodules, and the gradient by autograd that the written graph is compared with.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.cnn.export import OPSET, TRACE_BATCH, quiet
from models.errors import InputError
from models.graph.wrap import INPUT, LOGITS
from services.training.foreign.check import Compared, against_autograd
from services.training.foreign.running import first_line


@dataclass(frozen=True)
class Submodule:
    """A place in a module whose output can be a tap. shape: with the batch as None."""

    path: str
    kind: str
    shape: tuple[int | None, ...]


def load_module(
    where: str, arguments: Mapping[str, Any] | None = None, weights: Path | None = None
) -> nn.Module:
    """'package.module:factory' called with the arguments, in evaluation mode, with its weights.

    weights: .safetensors, or .pt/.pth read without pickled objects. Raises InputError.
    """
    package, colon, name = where.partition(":")
    if not colon:
        raise _refused("module", where, "package.module:factory")
    try:
        factory = getattr(importlib.import_module(package), name)
    except (ImportError, AttributeError) as error:
        raise _refused("module", first_line(error), "something that Python can import") from None
    try:
        module = factory(**(arguments or {}))
    except TypeError as error:
        raise _refused("arguments", first_line(error), f"the arguments of {name}") from None
    if not isinstance(module, nn.Module):
        raise _refused("module", type(module).__name__, "a factory of a torch.nn.Module")
    if weights is not None:
        _load_weights(module, weights)
    for part in module.modules():
        # A tap must not be overwritten by the layer behind it.
        if getattr(part, "inplace", False):
            part.inplace = False  # type: ignore[assignment]
    return module.eval().requires_grad_(False)


def read_arguments(text: str) -> dict[str, Any]:
    """A JSON object, as typed. Raises InputError."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _refused("arguments", text[:60], 'a JSON object, as in {"in_channels": 3}')
    return found


def submodules(module: nn.Module, phases: int, edge: int) -> list[Submodule]:
    """Every submodule that gives one tensor [batch, D] or [batch, D, x, y, z], in call order."""
    found: dict[str, Submodule] = {}

    def watch(path: str) -> Any:
        def hook(part: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim in (2, 5):
                found[path] = Submodule(path, type(part).__name__, (None, *output.shape[1:]))

        return hook

    _run(module, torch.zeros(2, phases, edge, edge, edge), watch)
    return list(found.values())


def export_module(
    module: nn.Module, taps: Sequence[str], phases: int, edge: int, path: Path
) -> onnx.ModelProto:
    """Export with the outputs 'logits' and the value of each submodule named in taps.

    Raises InputError for an unknown path, and for what torch cannot export.
    """
    known = dict(module.named_modules())
    for tap in taps:
        if tap not in known or not tap:
            raise _refused("taps", tap, "the path of a submodule; --list-taps shows them")
    batch = torch.export.Dim("batch", min=1, max=4096)
    x = torch.zeros(TRACE_BATCH, phases, edge, edge, edge)
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                Tapped(module, taps),
                (x,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[LOGITS, *taps],
                dynamic_shapes=({0: batch},),
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
            assert program is not None
            program.save(str(path), external_data=False)
    except Exception as error:  # the exporter and the module raise what they like
        root = error.__cause__ or error
        raise InputError(
            "torch cannot export the module: " + first_line(root),  # type: ignore[arg-type]
            code="adopt_export", field="module",
            expected=f"a module of [batch, {phases}, {edge}, {edge}, {edge}]",
        ) from None  # fmt: skip
    return onnx.load(str(path))


class Tapped(nn.Module):
    """forward(x) -> (first output, value of each tap)."""

    def __init__(self, module: nn.Module, taps: Sequence[str]) -> None:
        super().__init__()
        self.module, self.taps = module, list(taps)
        self.caught: dict[str, Tensor] = {}
        for name, part in module.named_modules():
            if name in self.taps:
                part.register_forward_hook(self._catch(name))

    def _catch(self, name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            self.caught[name] = output

        return hook

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        output = self.module(x)
        first = output[0] if isinstance(output, (tuple, list)) else output
        found = tuple(self.caught[t] for t in self.taps)
        self.caught = {}
        return (first, *found)


def autograd(
    module: nn.Module,
    taps: Mapping[str, str],
    x: NDArray[np.float32],
    weights: Mapping[str, NDArray[np.float32]],
    *,
    probabilities: bool,
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
    """(scores, gradients named as in gradients.onnx) by torch itself. taps: our name -> path."""
    tapped = Tapped(module, list(taps.values()))
    with torch.enable_grad():
        leaf = torch.from_numpy(x).clone().requires_grad_(True)
        raw, *held = tapped(leaf)
        logits = torch.log(raw.clamp_min(1e-12)) if probabilities else raw
        total = (torch.from_numpy(weights[LOGITS]) * logits).sum()
        for name, value in zip(taps, held, strict=True):
            total = total + (torch.from_numpy(weights[name]) * _pooled(value)).sum()
        found = torch.autograd.grad(total, [leaf, *held])
    result = {"grad_input": found[0].numpy()}
    for name, gradient in zip(taps, found[1:], strict=True):
        summed = gradient.sum(dim=(2, 3, 4)) if gradient.ndim == 5 else gradient
        result[f"grad_{name}"] = summed.numpy()
    return torch.softmax(logits.detach(), dim=1).numpy(), result


def errors(
    module: nn.Module, taps: Mapping[str, str], found: Compared, *, probabilities: bool
) -> dict[str, float]:
    """services.training.foreign.check.against_autograd on the lesions that were compared."""
    scores, slopes = autograd(module, taps, found.x, found.weights, probabilities=probabilities)
    return against_autograd(scores, slopes, found)


def _pooled(value: Tensor) -> Tensor:
    return value.mean(dim=(2, 3, 4)) if value.ndim == 5 else value


def _run(module: nn.Module, x: Tensor, watch: Any) -> None:
    handles = [p.register_forward_hook(watch(n)) for n, p in module.named_modules() if n]
    try:
        with torch.no_grad():
            module(x)
    except Exception as error:  # whatever the module raises
        raise InputError(
            "the module cannot take the tensor: " + first_line(error), code="adopt_shape",
            field="module", expected=f"[batch, {', '.join(str(n) for n in x.shape[1:])}]",
        ) from None  # fmt: skip
    finally:
        for handle in handles:
            handle.remove()


def _load_weights(module: nn.Module, path: Path) -> None:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(str(path))
        else:
            state = torch.load(str(path), map_location="cpu", weights_only=True)
            state = state.get("state_dict", state)
        missing, unexpected = module.load_state_dict(state, strict=False)
    except Exception as error:  # of safetensors, torch and the unpickler
        raise InputError(
            "the weights cannot be read: " + first_line(error), code="adopt_weights",
            field=path.name,
        ) from None  # fmt: skip
    if missing or unexpected:
        raise InputError(
            f"the weights are of another module: {len(missing)} missing, {len(unexpected)} unknown",
            code="adopt_weights", field=path.name, found=(unexpected or ["nothing"])[0],
            expected=(missing or ["nothing more"])[0],
        )  # fmt: skip


def _refused(field: str, found: str, expected: str) -> InputError:
    return InputError("cannot be used", code="adopt_module", field=field, found=found,
                      expected=expected)  # fmt: skip
