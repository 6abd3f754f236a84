"""The range test on real photos: its curves, and a sweep of training runs to judge its suggestion by.

Needs `real('clothing')`; no photo is stored. AdamW, a small ResNet at 64 pixels, random flips, the rate falling in a straight line to zero."""
import json, os, time
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from dlpractice.data import Batches, channel_stats, real
from dlpractice.lr_finder import lr_range_test
from dlpractice.runs import code_hashes, save_run
from dlpractice.snapshots import seeded
from lr_rules import Block, share_right

SWEEP = [float(f'{lr:.4g}') for lr in np.geomspace(1e-4, 0.1, 7)]
SEEDS = (0, 1)
EPOCHS = 8


@lru_cache(None)
def photos():
    "((train images, labels), (validation images, labels)), normalised."
    train, valid = real('clothing', 'train', 64), real('clothing', 'valid', 64)
    mean, std = (s.view(-1, 1, 1) for s in channel_stats(train.images))
    return tuple(((d.images.float()/255 - mean)/std, d.labels) for d in (train, valid))


def net(seed):
    "A strided stem and three residual blocks."
    with seeded(seed):
        return nn.Sequential(nn.Conv2d(3, 24, 5, 2, 2, bias=False), nn.BatchNorm2d(24), nn.ReLU(), Block(24, 48), Block(48, 96), Block(96, 128),
                             nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def flipped(x, y):
    "Half of the pictures mirrored."
    return torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(-1), x), y


def loader(seed): return Batches(*photos()[0], size=32, generator=torch.Generator().manual_seed(seed))


def trial(lr, seed):
    "Share of the validation photos right after training at `lr`."
    torch.set_num_threads(1)
    model, batches = net(seed), loader(seed)
    opt = torch.optim.AdamW(model.parameters(), lr=lr)
    total, step = EPOCHS*len(batches), 0
    with seeded(seed):
        for x, y in (flipped(*b) for _ in range(EPOCHS) for b in batches):
            for g in opt.param_groups: g['lr'] = lr*(1 - step/total)
            loss = F.cross_entropy(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            step += 1
    return share_right(model, photos()[1])


def work(job): return job, trial(*job)


def run_all(jobs, done, path):
    "Run what `done` lacks, keeping each result at once."
    with get_context('spawn').Pool(os.cpu_count()) as pool:
        for job, value in pool.imap_unordered(work, [j for j in jobs if json.dumps(j) not in done]):
            done[json.dumps(job)] = value
            path.write_text(json.dumps(done))
            print(*job, f'{value:.3f}', flush=True)
    return [[done[json.dumps((lr, s))] for s in SEEDS] for lr in dict.fromkeys(lr for lr, _ in jobs)]


def main():
    start, path = time.time(), Path('lr_clothing.part')
    code = code_hashes('lr_clothing.py', 'dlpractice.lr_finder:lr_range_test', 'dlpractice.lr_finder:dip')
    done = json.loads(path.read_text()) if path.exists() else {}
    r = lr_range_test(net(0), F.cross_entropy, loader(0), torch.optim.AdamW, progress=False)
    print(r)
    accuracy = run_all([(lr, s) for lr in SWEEP for s in SEEDS], done, path)
    accuracy_at = run_all([(r.suggest(), s) for s in SEEDS], done, path)[0]
    curves = [[None if np.isnan(v) else round(float(v), 5) for v in c] for c in r.curves]
    save_run('lr_clothing.json', dict(lrs=r.lrs.tolist(), curves=curves, stops=r.stops, optimizer=r.optimizer, verdict=r.verdict, suggestion=r.suggestion,
             rates=SWEEP, accuracy=accuracy, accuracy_at=accuracy_at), code=code,
             seeds=list(SEEDS), seconds=time.time() - start)
    path.unlink()


if __name__ == '__main__': main()
