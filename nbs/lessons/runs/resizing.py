"""Progressive resizing against full size and against small pictures throughout: small letters in large pictures, ten seeds.

Each arm is trained at several lengths, each a whole schedule of its own; what an accuracy costs is read off between them.
Paired: within a seed all arms share pictures, initialisation and the order of the batches. The rate of each arm is the best
of three on the validation pictures of another seed. Seconds are those of the process, one thread, validation not counted."""
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from dlpractice.data import Batches, glyphs
from dlpractice.glyph_fonts import font_names
from dlpractice.intervals import t_interval
from dlpractice.pooling_heads import ConcatPoolHead
from dlpractice.resizing import SizePlan, flops, resize_batch
from dlpractice.runs import code_hashes, save_run
from dlpractice.snapshots import seeded

LETTERS, SIDE, N = 'aceosngq', 40, 1200
PLANS = {'full size': SizePlan([(0., 40)]), 'progressive': SizePlan([(0., 28), (0.6, 40)]), 'half the side': SizePlan([(0., 20)])}
EPOCHS = {'full size': (8, 12), 'progressive': (8, 12, 16), 'half the side': (8, 16)}
RATES, SEEDS = (0.01, 0.02, 0.04), tuple(range(10))


def letters(n, seed, noise=0.08):
    "Letters of 20 pixels in noisy pictures of 40."
    g = glyphs(n, LETTERS, size=20, seed=seed, level='easy', noise=0., shift=0., rotation=.15, scale=.1, shear=.1, contrast=(.5, .8), fonts=list(font_names('train', LETTERS))[:6])
    with seeded(seed):
        top, left = torch.randint(4, 17, (2, n, 1, 1))
        x = noise*torch.randn(n, 1, SIDE, SIDE)
    ink = g.images.float()/255
    x[torch.arange(n)[:, None, None], 0, top + torch.arange(20)[:, None], left + torch.arange(20)] += (ink - ink[..., :1, :1])[:, 0]
    return x/0.2, g.labels


def net(widths=(1, 12, 24, 48)):
    layers = []
    for a, b in zip(widths, widths[1:]): layers += [nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(*layers, ConcatPoolHead(widths[-1], len(LETTERS)))


def train(plan, rate, epochs, seed, data, score):
    "(share of right answers at the plan's last size, seconds, operations of all training steps)."
    x, y = data
    with seeded(seed):
        model, batches = net(), Batches(x, y, size=40)
        opt, steps, k, began = torch.optim.AdamW(model.parameters(), lr=rate), epochs*30, 0, time.process_time()
        for _ in range(epochs):
            for xb, yb in batches:
                opt.param_groups[0]['lr'] = rate*(1 - k/steps)
                loss = F.cross_entropy(model(resize_batch(xb, plan(k/steps))), yb)
                opt.zero_grad(); loss.backward(); opt.step()
                k += 1
    seconds = time.process_time() - began
    model.eval()
    with torch.no_grad(): right = [(model(resize_batch(xb, plan(1.))).argmax(1) == yb) for xb, yb in zip(score[0].split(500), score[1].split(500))]
    return torch.cat(right).float().mean().item(), seconds, 3*epochs*N*plan.cost(SIDE, lambda s: flops(model, s))*flops(model, SIDE)


def cost_at(target, accuracy, cost):
    "What an accuracy costs, on the line between two lengths; None where no length reaches it."
    for i, a in enumerate(accuracy):
        if a < target: continue
        if i == 0: return cost[0]
        share = (target - accuracy[i - 1])/(a - accuracy[i - 1])
        return cost[i - 1] + share*(cost[i] - cost[i - 1])


if __name__ == '__main__':
    torch.set_num_threads(1)
    began, here = time.perf_counter(), Path(__file__).resolve().parent
    code = code_hashes('resizing.py', 'dlpractice.resizing:resize_batch', 'dlpractice.resizing:SizePlan', 'dlpractice.size_costs:flops', folder=here)
    data, score = letters(N, 1001), letters(1000, 1002)
    best = {name: max(RATES, key=lambda r: train(plan, r, 8, 100, data, score)[0]) for name, plan in PLANS.items()}
    print(best, flush=True)
    found = {name: [dict(epochs=e, accuracy=[], seconds=[], gflops=0.) for e in EPOCHS[name]] for name in PLANS}
    for seed in SEEDS:
        data, test = letters(N, 3*seed), letters(2000, 3*seed + 1)
        for name, plan in PLANS.items():
            for point in found[name]:
                a, s, f = train(plan, best[name], point['epochs'], seed, data, test)
                point['accuracy'].append(round(a, 4)); point['seconds'].append(round(s, 3)); point['gflops'] = f/1e9
        print(seed, {n: [p['accuracy'][-1] for p in o] for n, o in found.items()}, flush=True)
    mean = {n: [float(np.mean(p['accuracy'])) for p in o] for n, o in found.items()}
    target, gain = mean['full size'][-1], {}
    for key in ('gflops', 'seconds'):
        cost = {n: cost_at(target, mean[n], [float(np.median(p[key])) for p in found[n]]) for n in found}
        gain[key.replace('g', '')] = cost['full size']/cost['progressive'] if cost['progressive'] else None
    d = np.subtract(found['progressive'][1]['accuracy'], found['full size'][1]['accuracy'])
    results = dict(arms=found, rates=best, target=target, gain=gain, epochs=EPOCHS['full size'], difference=dict(mean=float(d.mean()), interval=list(t_interval(d))),
                   small_gap=target - max(mean['half the side']))
    print(save_run(here/'resizing.json', results, code, SEEDS, time.perf_counter() - began), gain, results['difference'], results['small_gap'])
