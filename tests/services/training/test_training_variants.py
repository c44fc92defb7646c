"""What a variant costs: measured on validation lesions, held against its budget, kept honestly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.bundle.precision import load_variant, open_classifier
from models.bundle.read import Bundle, read_bundle
from models.bundle.runtime import OnnxModel, load_model
from models.bundle.variant import FOLDER, KINDS, read_record
from models.bundle.write import write_bundle
from models.cnn.data import SplitArrays
from models.cohort.format import read_cohort
from models.errors import BundleError, InputError
from services.training import variants
from services.training.quantise import quantise
from services.training.variant_measures import judged, measure, pearson, speed, time_rows
from services.training.variants import make_variant
from tests.models.bundle import tiny_onnx
from wire.variant import Budget, Measured

N, SPEC = 24, tiny_onnx.SPEC


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    write_bundle(folder, tiny_onnx.parts())
    return load_model(folder)


@pytest.fixture(scope="module")
def split(fp32: OnnxModel) -> SplitArrays:
    """Lesions that the network gets right, but for every fourth; features as its probes see."""
    rng = np.random.default_rng(2)
    bundle: Bundle = fp32.bundle  # type: ignore[assignment]
    edge = SPEC.base_voxels
    bases = rng.normal(size=(N, 3, edge, edge, edge)).astype(np.float32)
    bases += rng.normal(scale=0.5, size=(N, 3, 1, 1, 1)).astype(np.float32)
    margin = (edge - SPEC.tensor_voxels) // 2
    cut = slice(margin, margin + SPEC.tensor_voxels)
    seen = fp32.forward(bases[:, :, cut, cut, cut].copy(), ["logits", "conv1", "fc"])
    classes = seen["logits"].argmax(axis=1)
    classes[::4] = (classes[::4] + 1) % tiny_onnx.C
    found = bundle.probes.probabilities(bundle.probe_vector(seen))
    features = (found > np.median(found, axis=0)).astype(np.float32)
    names = bundle.manifest.classes
    return SplitArrays(
        ids=tuple(f"held-{i}" for i in range(N)),
        class_ids=tuple(names[c] for c in classes),
        bases=bases,
        sizes_mm=np.full((N, 3), 32.0),
        classes=classes.astype(np.int64),
        features=features,
    )


def measured(fp32: OnnxModel, graph: bytes, split: SplitArrays) -> Measured:
    bundle: Bundle = fp32.bundle  # type: ignore[assignment]
    variant = open_classifier(KINDS["int8"], bundle.info, graph)
    return measure(bundle, fp32, variant, split, "c-0", passes=3, draws=100, steps=4)


def test_the_same_network_loses_nothing(fp32: OnnxModel, split: SplitArrays) -> None:
    found = measured(fp32, fp32.bundle.classifier, split)
    assert found.accuracy.fp32 == found.accuracy.variant == pytest.approx(0.75)
    assert found.accuracy.loss == 0.0
    assert found.probe_auroc is not None
    assert found.probe_auroc.loss == 0.0
    assert 0.5 < found.probe_auroc.fp32 <= 1.0
    assert (found.maps.mean, found.maps.least, found.maps.drawn) == (1.0, 1.0, 0)
    assert (found.same_class, found.largest_difference) == (1.0, 0.0)
    assert found.outside[0] == found.outside[1]
    assert judged(found, Budget()) == []


def test_another_network_is_over_every_budget(fp32: OnnxModel, split: SplitArrays) -> None:
    found = measured(fp32, tiny_onnx.graph("classifier", seed=4), split)
    assert found.accuracy.variant < found.accuracy.fp32 == pytest.approx(0.75)
    assert found.accuracy.ci is not None
    assert found.accuracy.ci[0] <= found.accuracy.loss <= found.accuracy.ci[1]
    assert found.maps.drawn > 0
    assert found.maps.least < found.maps.mean < 0.98
    reasons = judged(found, Budget())
    assert [r.split(" ")[0] for r in reasons] == ["class", "probe", "class"]


def test_the_estimate_decides_at_the_budget_and_not_before(fp32, split) -> None:
    same = measured(fp32, fp32.bundle.classifier, split)

    def lost(accuracy: float = 0.0, auroc: float = 0.0, correlation: float = 1.0) -> list[str]:
        changed = same.model_copy(
            update={
                "accuracy": same.accuracy.model_copy(update={"loss": accuracy}),
                "probe_auroc": same.probe_auroc.model_copy(update={"loss": auroc}),
                "maps": same.maps.model_copy(update={"mean": correlation}),
            }
        )
        return judged(changed, Budget())

    assert lost(0.005, 0.01, 0.98) == []
    assert lost(-0.1, -0.1) == []
    assert len(lost(accuracy=0.0051)) == len(lost(auroc=0.0101)) == 1
    assert len(lost(correlation=0.9799)) == len(lost(accuracy=float("nan"))) == 1


def test_a_correlation_of_maps_is_pearsons() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 4, 4, 4))
    assert pearson(a, b) == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    assert pearson(a, 3 * a + 2) == pytest.approx(1)
    assert pearson(a, np.zeros_like(a)) == 0.0


def test_rows_are_timed_way_by_way(fp32: OnnxModel) -> None:
    rows = tiny_onnx.images(4, 1)
    seconds = time_rows([fp32, fp32], rows, rounds=3, each=5)
    assert seconds.shape == (2, 3)
    assert (seconds > 0).all()
    timed = speed(fp32, fp32, rows, rounds=3, each=5)
    assert timed.speedup[0] <= timed.speedup[1] <= timed.speedup[2]


@pytest.mark.parametrize("first_in_float", [True, False])
def test_weights_become_integers_a_scale_per_channel(fp32, first_in_float) -> None:
    import onnx
    from onnx import numpy_helper

    rows = list(tiny_onnx.images(12, 2))
    graph = quantise(fp32.bundle.classifier, rows, first_in_float=first_in_float)
    assert graph == quantise(fp32.bundle.classifier, rows, first_in_float=first_in_float)
    model = onnx.load_from_string(graph)
    held = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    kernels = [v for v in held.values() if v.dtype == np.int8 and v.ndim == 5]
    assert len(kernels) == (0 if first_in_float else 1)
    if kernels:
        (scale,) = (v for n, v in held.items() if n.startswith("kernel") and "scale" in n)
        assert scale.shape == (tiny_onnx.CONV,)
    assert any(v.dtype == np.int8 for v in held.values())
    assert [o.name for o in model.graph.output] == [
        o.name for o in onnx.load_from_string(fp32.bundle.classifier).graph.output
    ]


@pytest.fixture
def trained(tmp_path: Path, tiny_cohort: Path) -> Path:
    """The tiny bundle as if the cohort's training lesions had made it."""
    parts = tiny_onnx.parts()
    ids = [e.lesion_id for e in read_cohort(tiny_cohort).lesions("training")][:30]
    old = parts.reference
    reference = replace(
        old, activations=old.activations[:30], lesion_ids=ids,
        class_ids=old.class_ids[:30], features=old.features[:30],
    )  # fmt: skip
    write_bundle(tmp_path / "bundle", replace(parts, reference=reference))
    return tmp_path / "bundle"


def test_a_variant_is_made_measured_and_kept(trained: Path, tiny_cohort: Path) -> None:
    told: list[str] = []
    hash_before = read_bundle(trained).hash
    record = make_variant(
        trained, "int8", tiny_cohort, passes=2, draws=50, rounds=3,
        progress=lambda r: told.append(r.stage),
    )  # fmt: skip
    bundle = read_bundle(trained)
    assert bundle.hash == record.parent == hash_before
    assert read_record(bundle, "int8") == record
    assert record.measured.n == len(read_cohort(tiny_cohort).lesions("validation"))
    assert record.calibration["lesions"] == 30  # those that trained it, and no others
    assert record.accepted == (judged(record.measured, record.budget) == []) == (not record.reasons)
    assert (trained / FOLDER / "int8" / "classifier.onnx").is_file() == record.accepted
    assert list(dict.fromkeys(told)) == ["load", "quantise", "measure", "speed", "write"]


def test_a_variant_over_its_budget_cannot_serve(trained, tiny_cohort, monkeypatch) -> None:
    lenient = Budget(accuracy_loss=1.0, probe_auroc_loss=1.0, map_correlation=-1.0)
    more = {"passes": 2, "draws": 50, "rounds": 2}
    assert make_variant(trained, "int8", tiny_cohort, budget=lenient, **more).accepted
    base = load_model(trained)
    load_variant(base.bundle, "int8", base)  # type: ignore[arg-type]
    # A quantiser gone wrong: another network comes out.
    monkeypatch.setattr(
        variants, "quantise", lambda *_, **__: tiny_onnx.graph("classifier", seed=4)
    )
    record = make_variant(trained, "int8", tiny_cohort, **more)
    assert not record.accepted
    assert any("maps correlate" in reason for reason in record.reasons)
    # The earlier acceptance does not linger, and nothing is left that could run.
    assert [f.name for f in (trained / FOLDER / "int8").iterdir()] == ["variant.json"]
    with pytest.raises(BundleError, match="refused"):
        load_variant(base.bundle, "int8", base)  # type: ignore[arg-type]


def test_lesions_that_trained_the_network_do_not_judge_it(trained, tiny_cohort, tmp_path) -> None:
    held = [e.lesion_id for e in read_cohort(tiny_cohort).lesions("validation")]
    parts = tiny_onnx.parts()
    ids = [held[0], *parts.reference.lesion_ids[1:]]
    write_bundle(
        tmp_path / "leak", replace(parts, reference=replace(parts.reference, lesion_ids=ids))
    )
    with pytest.raises(InputError) as fault:
        make_variant(tmp_path / "leak", "int8", tiny_cohort)
    assert (fault.value.code, fault.value.found) == ("cohort_leak", held[0])
