"""Things that were put on or into the patient: a pacemaker, a central line, tubes, monitoring leads.

Knows nothing of exposure. A device is attenuation in mm of water with the mask of its visible parts; every device of
the film counts as one label. 1 mm of steel weighs as much as about 40 mm of water at 70 keV, a barium-filled catheter
as 10-20 mm. Vocabulary: `frame` is the lungs' bounding box, in which anatomy is roughly known.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from lesions import Added, Anatomy, Array, Mask, bezier, draw, grid
from scipy import ndimage

Frame = tuple[float, float, float, float]


def frame_of(anatomy: Anatomy) -> Frame:
    """Return left, top, right, bottom of the lungs in pixels."""
    rows, columns = np.nonzero(anatomy.depth > 25)
    if len(rows) == 0:
        height, width = anatomy.depth.shape
        return 0.2 * width, 0.2 * height, 0.8 * width, 0.7 * height
    return float(columns.min()), float(rows.min()), float(columns.max()), float(rows.max())


def at(frame: Frame, u: float, v: float) -> list[float]:
    """Return the pixel at the fractions (u across, v down) of the frame."""
    return [frame[0] + u * (frame[2] - frame[0]), frame[1] + v * (frame[3] - frame[1])]


def wire(anatomy: Anatomy, path: Array, width_mm: float, weight: float) -> Added:
    """Return one wire: never drawn thinner than it would blur to on a film."""
    shape = (anatomy.depth.shape[0], anatomy.depth.shape[1])
    width = max(width_mm / anatomy.pixel_mm, 0.5)
    line = draw(shape, path, width) * np.float32(weight)
    return line, line > 0.25 * weight


def pacemaker(rng: np.random.Generator, anatomy: Anatomy, frame: Frame) -> Added:
    """Return a generator box below a clavicle and one to three leads to the heart."""
    shape = (anatomy.depth.shape[0], anatomy.depth.shape[1])
    side = rng.choice([0.0, 1.0])
    across = (lambda u: u) if side else (lambda u: 1 - u)
    x0, y0 = at(frame, across(rng.uniform(0.82, 1.0)), rng.uniform(0.02, 0.2))
    x, y = grid(shape)
    turn, power = rng.uniform(-0.6, 0.6), rng.uniform(2.2, 4.5)
    u = (x - x0) * np.cos(turn) + (y - y0) * np.sin(turn)
    v = (y - y0) * np.cos(turn) - (x - x0) * np.sin(turn)
    half = rng.uniform(19, 28), rng.uniform(16, 25)
    apart = (np.abs(u) * anatomy.pixel_mm / half[0]) ** power + (np.abs(v) * anatomy.pixel_mm / half[1]) ** power
    box = apart < 1
    inner = (np.abs(u * anatomy.pixel_mm + 3) < half[0] * 0.5) & (np.abs(v) * anatomy.pixel_mm < half[1] * 0.55)
    added = ndimage.gaussian_filter((box * rng.uniform(30, 80) + inner * rng.uniform(0, 60)).astype(np.float32), 0.5)
    mask = box.copy()
    for _ in range(int(rng.integers(1, 4))):
        tip = at(frame, 0.5 + (side - 0.35) * rng.uniform(0.0, 0.35), rng.uniform(0.6, 0.98))
        loop = at(frame, across(rng.uniform(0.7, 0.95)), rng.uniform(-0.12, 0.1))
        cava = at(frame, rng.uniform(0.40, 0.5), rng.uniform(0.1, 0.5))
        path = bezier(np.array([[x0, y0], loop, at(frame, across(0.6), -0.05), cava, cava, tip]))
        lead, seen = wire(anatomy, path, rng.uniform(1.6, 2.6), rng.uniform(18, 40))
        added, mask = np.maximum(added, lead), mask | seen
    return added, mask


def central_line(rng: np.random.Generator, anatomy: Anatomy, frame: Frame) -> Added:
    """Return a catheter from the neck, the subclavian vein or the arm to the superior vena cava."""
    right = rng.random() < 0.5
    across = (lambda u: u) if right else (lambda u: 1 - u)
    tip = at(frame, rng.uniform(0.38, 0.5), rng.uniform(0.3, 0.65))
    bend = at(frame, rng.uniform(0.38, 0.48), rng.uniform(0.0, 0.25))
    kind = rng.integers(3)
    if kind == 0:
        start = [at(frame, across(rng.uniform(0.28, 0.42)), rng.uniform(-0.35, -0.15))]
    elif kind == 1:
        start = [at(frame, across(rng.uniform(0.02, 0.2)), rng.uniform(0.0, 0.3)), at(frame, across(0.2), -0.1)]
    else:
        start = [at(frame, across(-0.25), rng.uniform(0.1, 0.5)), at(frame, across(-0.02), rng.uniform(-0.1, 0.1))]
    path = bezier(np.array([*start, at(frame, across(rng.uniform(0.3, 0.4)), -0.02), bend, bend, tip]))
    line, mask = wire(anatomy, path, rng.uniform(1.5, 3.2), rng.uniform(9, 22))
    if rng.random() < 0.25:
        x, y = grid((line.shape[0], line.shape[1]))
        port = np.hypot(x - path[0, 0], y - path[0, 1]) * anatomy.pixel_mm < rng.uniform(8, 13)
        line, mask = line + port * np.float32(rng.uniform(8, 25)), mask | port
    return line, mask


def tube(rng: np.random.Generator, anatomy: Anatomy, frame: Frame) -> Added:
    """Return an endotracheal, gastric or chest tube: a marked line, often between two faint walls."""
    kind = rng.integers(3)
    middle = rng.uniform(0.44, 0.52)
    if kind == 0:
        end = at(frame, middle, rng.uniform(0.12, 0.3))
        path = bezier(np.array([at(frame, middle, -0.5), at(frame, middle, -0.1), end]))
    elif kind == 1:
        end = at(frame, rng.uniform(0.6, 0.8), rng.uniform(1.0, 1.2))
        path = bezier(np.array([at(frame, middle, -0.5), at(frame, middle, 0.3), at(frame, middle, 0.9), end]))
    else:
        outer = float(rng.choice([-0.15, 1.15]))
        inner = rng.uniform(0.05, 0.35) if outer < 0 else rng.uniform(0.65, 0.95)
        corners = [at(frame, outer, rng.uniform(0.4, 1.0)), at(frame, inner, rng.uniform(0.3, 0.8))]
        path = bezier(np.array([*corners, at(frame, inner, rng.uniform(0.0, 0.4))]))
    line, mask = wire(anatomy, path, rng.uniform(1.5, 2.8), rng.uniform(9, 22))
    if rng.random() < 0.6:
        shape = (line.shape[0], line.shape[1])
        bore = rng.uniform(6, 10) / anatomy.pixel_mm
        walls = draw(shape, path, bore + 1) - draw(shape, path, bore - 0.6)
        line, mask = line + walls * np.float32(rng.uniform(2, 5)), mask | (draw(shape, path, bore) > 0.5)
    return line, mask


def monitoring(rng: np.random.Generator, anatomy: Anatomy, frame: Frame) -> Added:
    """Return two to five electrodes with their wires, lying on the skin."""
    shape = (anatomy.depth.shape[0], anatomy.depth.shape[1])
    x, y = grid(shape)
    added, mask = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=bool)
    leave = at(frame, rng.uniform(0, 1), float(rng.choice([-0.5, 1.5])))
    for _ in range(int(rng.integers(2, 6))):
        end = at(frame, rng.uniform(-0.1, 1.1), rng.uniform(-0.05, 1.05))
        turns = [at(frame, rng.uniform(0, 1), rng.uniform(0, 1)) for _ in range(int(rng.integers(1, 3)))]
        lead, seen = wire(anatomy, bezier(np.array([end, *turns, leave])), rng.uniform(0.9, 1.8), rng.uniform(12, 30))
        away = np.hypot(x - end[0], y - end[1]) * anatomy.pixel_mm
        snap = away < rng.uniform(3.5, 6)
        pad = (away < rng.uniform(10, 17)) * rng.uniform(0, 2.0)
        added += lead + snap * np.float32(rng.uniform(10, 35)) + pad.astype(np.float32)
        mask |= seen | snap
    return added, mask


KINDS: tuple[Callable[[np.random.Generator, Anatomy, Frame], Added], ...] = (pacemaker, central_line, tube, monitoring)


def devices(rng: np.random.Generator, anatomy: Anatomy) -> Added:
    """Return one to three devices on one film; mask: their visible parts."""
    frame = frame_of(anatomy)
    total = np.zeros(anatomy.depth.shape, dtype=np.float32)
    mask: Mask = np.zeros(anatomy.depth.shape, dtype=bool)
    for index in rng.choice(len(KINDS), size=int(rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1])), replace=False):
        added, seen = KINDS[int(index)](rng, anatomy, frame)
        total, mask = total + added, mask | seen
    return total, mask
