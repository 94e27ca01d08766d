"""Trains the demonstration model on a bank of phantom films; writes weights and a log, and evaluates nothing.

The loss is binary cross-entropy of the labels plus, for every cell of the feature grid, binary cross-entropy of the
class activation map against the known lesion masks. The map is thus supervised: where it points was taught, not found.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lesions import LABELS
from network import normalised, save, untrained
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

CELL_POSITIVE_WEIGHT = (10.0, 3.0, 3.0, 6.0)
QUIET_WEIGHT = 0.05  # of the map's size where there is nothing: the mean over the film must not collect noise
GAIN_RATE = 4.0  # times the learning rate, for the gains and offsets


class Bank:
    """The arrays of one or more banks, mapped, in random order by epoch."""

    def __init__(self, folders: list[Path]) -> None:
        self.parts = [
            {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "labels", "cells", "source")}
            for folder in folders
        ]
        self.where = [(p, i) for p, part in enumerate(self.parts) for i in range(len(part["labels"]))]

    def take(self, picks: npt.NDArray[np.int64], name: str) -> torch.Tensor:
        """Return the rows `picks` of the array `name`."""
        rows = [self.parts[p][name][i] for p, i in (self.where[k] for k in picks)]
        return torch.from_numpy(np.stack(rows))


class Supervised(nn.Module):
    """The network with what only training needs: a gain of the mean map and an offset of the cells, one each a label.

    A nodule fills one cell in a hundred, so the mean of a map that is right for the cells is tiny. The gain makes the
    label's logit of it; on saving it is folded into the head's weights, and the plain network remains.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.log_gain = nn.Parameter(torch.full((len(LABELS),), 2.0))
        self.offset = nn.Parameter(torch.full((1, len(LABELS), 1, 1), -4.0))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return label logits (N, K), cell logits (N, K, h, w) and the ungained map (N, K, h, w) of (N, 1, H, W)."""
        network: Any = self.network
        features = network.stages(network.stem(images))
        with torch.autocast("cpu", enabled=False):
            cam = torch.einsum("kc,nchw->nkhw", network.head.weight, features.float())
            return self.log_gain.exp() * cam.mean(dim=(2, 3)) + network.head.bias, cam + self.offset, cam

    def folded(self) -> nn.Module:
        """Return a copy of the plain network, the gain in its head."""
        plain: Any = copy.deepcopy(self.network)
        plain.head.weight.data *= self.log_gain.detach().exp()[:, None]
        return plain.eval()


def varied(images: torch.Tensor) -> torch.Tensor:
    """Vary display values: gamma, a smooth curve, noise, now and then a blur. (N, 1, H, W) float32, 0..1."""
    n = len(images)
    gamma = torch.exp(0.3 * torch.randn(n, 1, 1, 1))
    curved = images.clamp_min(1e-4) ** gamma
    curved = curved + 0.12 * torch.randn(n, 1, 1, 1) * torch.sin(torch.pi * curved)
    if torch.rand(()) < 0.25:
        curved = F.avg_pool2d(curved, 3, 1, 1, count_include_pad=False)
    noisy = curved + torch.randn_like(curved) * 0.02 * torch.rand(n, 1, 1, 1)
    return noisy.clamp(0, 1)


def loss_of(
    answer: tuple[torch.Tensor, ...], labels: torch.Tensor, cells: torch.Tensor, cell_weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the label loss, and the weighted cell loss with the quiet-background term.

    Parameters
    ----------
    answer : what `Supervised` returns
    labels : (N, K) float32
    cells : (N, K, h, w) float32, 0..1
    """
    logits, cell_logits, cam = answer
    weight = torch.tensor(CELL_POSITIVE_WEIGHT)[None, :, None, None]
    by_label = F.binary_cross_entropy_with_logits(logits, labels)
    by_cell = F.binary_cross_entropy_with_logits(cell_logits, cells, pos_weight=weight)
    unrest = (F.smooth_l1_loss(cam, torch.zeros_like(cam), reduction="none") * (cells == 0)).mean()
    return by_label, cell_weight * (by_cell + QUIET_WEIGHT * unrest)


def targets(shares: torch.Tensor) -> torch.Tensor:
    """Return cell targets 0..1 from mask shares (uint8): full from a quarter of the cell's surroundings upwards."""
    return (shares.float() / 255 * 4).clamp(0, 1)


def epoch(
    model: Supervised, bank: Bank, order: npt.NDArray[np.int64], step: Any, args: argparse.Namespace
) -> tuple[float, float, bool]:
    """Train once through `order`; returns the mean label loss, the mean cell loss and whether to go on."""
    model.train()
    sums = np.zeros(3)
    batches = [order[i : i + args.batch] for i in range(0, len(order) - args.batch + 1, args.batch)]
    for picks in batches:
        images = normalised(varied(bank.take(picks, "images")[:, None].float() / 255))
        with torch.autocast("cpu", torch.bfloat16):
            answer = model(images.contiguous(memory_format=torch.channels_last))
        labels, wanted = bank.take(picks, "labels").float(), targets(bank.take(picks, "cells"))
        parts = loss_of(answer, labels, wanted, args.cell_weight)
        sums += [parts[0].item(), parts[1].item(), 1]
        if not step(parts[0] + parts[1]):
            return float(sums[0] / sums[2]), float(sums[1] / sums[2]), False
    return float(sums[0] / sums[2]), float(sums[1] / sums[2]), True


@torch.no_grad()
def auc(model: Any, bank: Bank, picks: npt.NDArray[np.int64]) -> list[float]:
    """Return the area under the ROC curve of each label (rank statistic) on the films `picks`."""
    model.eval()
    scores, truth = [], []
    for part in np.array_split(picks, max(1, len(picks) // 64)):
        images = normalised(bank.take(part, "images")[:, None].float() / 255)
        scores.append(model(images.contiguous(memory_format=torch.channels_last)).float())
        truth.append(bank.take(part, "labels"))
    values, labels = torch.cat(scores), torch.cat(truth)
    areas = []
    for k in range(labels.shape[1]):
        positive, negative = values[labels[:, k] == 1, k], values[labels[:, k] == 0, k]
        areas.append(float((positive[:, None] > negative[None]).float().mean()))
    return areas


def optimiser_of(model: Supervised, args: argparse.Namespace) -> torch.optim.AdamW:
    """Return AdamW with a faster rate for the gains and offsets."""
    groups = [
        {"params": list(model.network.parameters()), "share": 1.0},
        {"params": [model.log_gain, model.offset], "share": GAIN_RATE, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=args.rate, weight_decay=args.decay)


def pace(progress: float, warm_up: float) -> float:
    """Return the learning rate's factor: a linear rise, then half a cosine to 0. `progress` 0..1."""
    if progress < warm_up:
        return 0.05 + 0.95 * progress / warm_up
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warm_up) / (1 - warm_up))))


def keep(model: Supervised, bank: Bank, held: npt.NDArray[np.int64], out: Path) -> str:
    """Save the plain network, and the state for ``--start`` beside it; returns the validation areas as text."""
    plain = model.folded()
    save(plain, out)
    save(model, out.with_suffix(".state.safetensors"))
    return " ".join(f"{area:.3f}" for area in auc(plain, bank, held))


def work(rank: int, model: Supervised, args: argparse.Namespace) -> None:
    """Train the shared `model` on this worker's share of every epoch; worker 0 averages, validates, logs and saves."""
    torch.manual_seed(args.seed + rank)
    torch.set_num_threads(1)
    bank = Bank(args.bank)
    total = len(bank.where)
    held, order = np.arange(total - args.validation, total), np.arange(total - args.validation)
    optimiser, steps = optimiser_of(model, args), args.epochs * (len(order) // args.workers // args.batch)
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    averaged: Any = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    parameters = list(model.parameters())
    begun, done = time.monotonic(), itertools.count(1)

    def step(loss: torch.Tensor) -> bool:
        progress = max(next(done) / steps, (time.monotonic() - begun) / (60 * args.minutes))
        for group in optimiser.param_groups:
            group["lr"] = args.rate * group["share"] * pace(progress, args.warm_up)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 2.0)
        optimiser.step()
        if rank == 0:
            averaged.update_parameters(model)
        return progress < 1

    said = {name: str(value) for name, value in vars(args).items() if name not in ("out", "log", "bank", "start")}
    lines = [f"arguments {said} films {len(order)} parameters {sum(p.numel() for p in model.network.parameters())}"]
    for number in range(args.epochs):
        shuffled = np.random.default_rng([args.seed, number]).permutation(order)
        by_label, by_cell, more = epoch(model, bank, shuffled[rank :: args.workers], step, args)
        if rank == 0:
            areas = keep(averaged.module, bank, held, args.out)
            lines.append(
                f"epoch {number + 1} label-loss {by_label:.4f} cell-loss {by_cell:.4f} validation-auc {areas} "
                f"seconds {time.monotonic() - begun:.0f}"
            )
            args.log.write_text("\n".join(lines) + "\n", encoding="utf-8")
        if not more:
            break


def train(args: argparse.Namespace) -> None:
    """Train with single-threaded workers that update one shared model without waiting for each other.

    "Hogwild" (Niu et al., NeurIPS 2011). It suits a busy machine; the price: a seed doesn't repeat a run exactly.
    """
    torch.manual_seed(args.seed)
    model = Supervised(untrained().to(memory_format=torch.channels_last))
    if args.start:
        model.load_state_dict(load_file(args.start))
    model.share_memory()
    torch.multiprocessing.spawn(work, args=(model, args), nprocs=args.workers)


def main() -> None:
    """``python train.py BANK [BANK ...] --out weights.safetensors --log training-log.txt``."""
    parser = argparse.ArgumentParser(description="Train the demonstration model.")
    parser.add_argument("bank", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("weights.safetensors"))
    parser.add_argument("--log", type=Path, default=Path("training-log.txt"))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--decay", type=float, default=1e-4)
    parser.add_argument("--cell-weight", type=float, default=4.0)
    parser.add_argument("--validation", type=int, default=600)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--minutes", type=float, default=1e6, help="end here, the learning rate paced to it")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--warm-up", type=float, default=0.15, help="share of the steps with a rising learning rate")
    parser.add_argument("--start", type=Path, help="the .state.safetensors of an earlier run")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
