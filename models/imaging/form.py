"""Form: where the border lies, how irregular it is, what lies beyond it, how large it all is."""

from __future__ import annotations

import numpy as np

from models.imaging.border import everywhere, extended
from models.imaging.frame import RADII
from models.imaging.layers import GRID, Layers, Measurement

_SHELLS = (0.6, 0.74, 0.88, 1.02, 1.16)


def form(lesion: Layers) -> list[Measurement]:
    """All phases together; those that were not acquired add nothing."""
    edge, typical = lesion.edge, lesion.quantiles[:, 2]
    smooth = extended(edge, everywhere())
    # 1 where a voxel looks like the lesion's typical tissue, 0 where like parenchyma.
    like = np.tensordot(typical, lesion.polar, axes=1) / (float(typical @ typical) + 0.01)
    beyond = np.sqrt((lesion.profile[:, :, GRID > 1.1] ** 2).sum(axis=0)).mean()
    row = {
        "border": edge.mean(),
        "border_uneven": edge.std(),
        "border_rough": (edge - smooth).std(),
        "beyond": beyond,
        "size": np.log(lesion.size_mm.mean() / 30.0),
        "elongation": np.log(lesion.size_mm.max() / lesion.size_mm.min()),
    }
    for radius in _SHELLS:
        shell = like[:, int(np.abs(RADII - radius).argmin())]
        row[f"like_{round(radius * 100)}"] = shell.mean()
        row[f"like_uneven_{round(radius * 100)}"] = shell.std()
    return [Measurement(f"form.{k}", float(v), ()) for k, v in row.items()]
