"""Rigid registration of one phase to another, through SimpleITK where it is installed."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.volume import Volume

_LPS = np.diag([-1.0, -1.0, 1.0])  # ITK counts millimetres to the left and to the back


def simpleitk() -> Any:
    """The package. Raises ModuleNotFoundError where the extra 'register' is not installed."""
    return importlib.import_module("SimpleITK")


def register(
    fixed: Volume,
    moving: Volume,
    start: NDArray[np.float64],
    centre: NDArray[np.float64],
    *,
    field: str,
) -> NDArray[np.float64]:
    """4x4, mm in `fixed` -> mm in `moving`, RAS+: three angles and a shift.

    start: 4x4 to begin with, a shift. centre: mm in `fixed`, what is turned about. Mattes mutual
    information on three scales, every voxel sampled, one thread: the same input gives the same
    answer. Raises InputError where the phases do not overlap.
    """
    sitk = simpleitk()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    transform = sitk.Euler3DTransform()
    transform.SetCenter(tuple(_LPS @ centre))
    transform.SetTranslation(tuple(_LPS @ start[:3, 3]))
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0, minStep=0.01, numberOfIterations=100, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([4.0, 2.0, 0.0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(_image(sitk, fixed), _image(sitk, moving))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1][-100:]
        raise InputError(
            "registration failed", code="registration_failed", field=field, found=reason,
            expected="phases that overlap; or another --align",
        ) from None  # fmt: skip
    turn = np.array(transform.GetMatrix()).reshape(3, 3)
    about, shift = np.array(transform.GetCenter()), np.array(transform.GetTranslation())
    matrix = np.eye(4)
    matrix[:3, :3] = _LPS @ turn @ _LPS
    matrix[:3, 3] = _LPS @ (about + shift - turn @ about)
    return matrix


def _image(sitk: Any, volume: Volume) -> Any:
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.data.transpose(2, 1, 0)))
    axes = _LPS @ volume.affine[:3, :3] / volume.spacing
    # ITK wants exactly orthonormal axes; a NIfTI affine in float32 is a little off.
    u, _, v = np.linalg.svd(axes)
    image.SetSpacing([float(s) for s in volume.spacing])
    image.SetDirection([float(d) for d in (u @ v).ravel()])
    image.SetOrigin([float(o) for o in _LPS @ volume.affine[:3, 3]])
    return image
