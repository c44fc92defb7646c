"""A classifier with its weights shuffled: what a map method shows when nothing was learnt.

Each float tensor of weights keeps its own values in a random order, so that activations stay of a
likely size. All layers at once: Adebayo et al. 2018 (arXiv 1810.03292).
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from models.graph.reverse import gradient_graph


def randomised(classifier: bytes, seed: int) -> tuple[bytes, bytes]:
    """(classifier.onnx, gradients.onnx) of the same network with shuffled weights.

    Deterministic in `seed`. Raises BundleError as models.graph.reverse does.
    """
    model = onnx.load_from_string(classifier)
    for number, tensor in enumerate(model.graph.initializer):
        if tensor.data_type != onnx.TensorProto.FLOAT or not tensor.dims:
            continue
        values = numpy_helper.to_array(tensor)
        rng = np.random.default_rng([seed, number])
        shuffled = rng.permutation(values.ravel()).reshape(values.shape)
        tensor.CopyFrom(numpy_helper.from_array(shuffled, tensor.name))
    return model.SerializeToString(), gradient_graph(model).SerializeToString()
