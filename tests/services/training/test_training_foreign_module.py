"""A torch module by its import path: what cannot be used is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.errors import InputError
from models.graph.wrap import tap_names
from services.training.foreign.module import (
    export_module,
    load_module,
    read_arguments,
    submodules,
)

LINEAR = {"in_features": 3, "out_features": 2}


@pytest.mark.parametrize(
    ("where", "arguments", "field"),
    [
        ("torch.nn.Linear", {}, "module"),
        ("torch.nn:Linea", {}, "module"),
        ("no_such_package_here:Net", {}, "module"),
        ("torch.nn:Linear", {"in_features": 3}, "arguments"),
        ("builtins:dict", {}, "module"),
    ],
)
def test_what_is_no_module_is_refused(where: str, arguments: dict, field: str) -> None:
    with pytest.raises(InputError) as caught:
        load_module(where, arguments)
    assert (caught.value.code, caught.value.field) == ("adopt_module", field)
    assert "\n" not in caught.value.line


def test_weights_are_loaded_or_refused(tmp_path: Path) -> None:
    state = {"weight": torch.full((2, 3), 0.25), "bias": torch.zeros(2)}
    save_file(state, tmp_path / "w.safetensors")
    torch.save({"state_dict": state}, tmp_path / "w.pt")
    for name in ("w.safetensors", "w.pt"):
        module = load_module("torch.nn:Linear", LINEAR, tmp_path / name)
        assert module(torch.ones(1, 3)).tolist() == [[0.75, 0.75]]
    save_file({"weight": state["weight"]}, tmp_path / "half.safetensors")
    with pytest.raises(InputError, match="1 missing, 0 unknown"):
        load_module("torch.nn:Linear", LINEAR, tmp_path / "half.safetensors")
    torch.save(Path("objects"), tmp_path / "object.pt")
    with pytest.raises(InputError, match="cannot be read"):
        load_module("torch.nn:Linear", LINEAR, tmp_path / "object.pt")


def test_arguments_are_a_json_object() -> None:
    assert read_arguments('{"a": [1, 2]}') == {"a": [1, 2]}
    for text in ("[1]", "{", "3"):
        with pytest.raises(InputError):
            read_arguments(text)


def test_submodules_are_shown_with_their_shapes() -> None:
    net = torch.nn.Sequential(
        torch.nn.Conv3d(3, 4, 3), torch.nn.ReLU(inplace=True), torch.nn.Flatten()
    )
    found = {s.path: s.shape for s in submodules(net, 3, 6)}
    assert found == {"0": (None, 4, 4, 4, 4), "1": (None, 4, 4, 4, 4), "2": (None, 256)}
    with pytest.raises(InputError, match="cannot take the tensor"):
        submodules(net, 2, 6)


def test_an_unknown_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be used") as caught:
        export_module(torch.nn.Conv3d(3, 4, 3), ["layer9"], 3, 6, tmp_path / "m.onnx")
    assert caught.value.found == "layer9"


def test_names_of_taps() -> None:
    assert tap_names(["/a/b_0", "late=features.norm5"]) == {"a_b_0": "/a/b_0",
                                                            "late": "features.norm5"}  # fmt: skip
    assert tap_names(["3.conv"]) == {"tap_3_conv": "3.conv"}
    for bad in (["x=a"], ["logits=a"], ["a_map=b"], ["a=1", "a=2"], ["9a=b"], []):
        with pytest.raises(InputError):
            tap_names(bad)
