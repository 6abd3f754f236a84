"""The loss around a deep net with and without skip connections, at two depths, and around a shallow one.

Five nets ('arms') learn ten letters of 16×16 pixels. 'skips' and 'plain' have 32 layers: a 3×3 convolution of stride 2 to 16 channels
of 8×8, 15 blocks of two 3×3 convolutions, each with BatchNorm, and a linear layer on the average of each channel. In 'skips' each block
adds its input to its output; in 'plain' it does not, and nothing else differs: for one seed the two start from the same weights.
'skips 14' and 'plain 14' are the same with 6 blocks: 14 layers. They are there because 'plain' does not fit its training letters, so that at 32 layers
a solution is compared with none; they, and `recomputed` below for every seed, were added after a first look at two seeds. 'shallow' is 'plain' with one block: 4 layers. All have BatchNorm, in the shortcut-free nets too.
2,000 training letters, batches of 64, 15 epochs, SGD with momentum 0.9 and weight decay 5e-4, the rate falling in a straight line to
zero. Each arm's rate is the one of five, 0.01 to 1, with the best accuracy on 1,000 validation letters, with one seed (100) that
is not among the five of the trials. One run of such a net takes about 15 s on one thread; that is why it is not larger.

The planes: 21×21 points from -1 to 1, two random filter-normalised directions, the same draws for 'skips' and 'plain' of one depth and seed,
biases and BatchNorm's weights unmoved, the loss over the first 256 training letters, BatchNorm with its running statistics.

Stored in `results`:
- `settings`: the numbers above: train, valid, test, batch, epochs, points, span, images, layers {arm: int}, parameters {arm: int}.
- `rates`: the five rates of the sweep.
- `arms`: {arm: dict} for 'skips', 'plain', 'skips 14', 'plain 14', 'shallow', each with
  - `sweep`: per rate, dict(train_loss, train_accuracy, valid_loss, valid_accuracy) of the sweep's one run; None for all where it diverged.
  - `rate`: the one that was taken; `at_edge`: true if it is the first or the last of the five.
  - `trials`: per seed (0 to 4, in order) a dict:
    `seed`; `train_loss`, `train_accuracy`, `test_loss`, `test_accuracy` (accuracy: share of right answers; 3,000 test letters);
    `center` (loss on the plane's 256 letters at the model), `low`, `high` (smallest and largest loss of the plane), `cosine` (of the directions);
    `roughness` (of the plane: share of negative curvature, 0 to 1; the measure that was fixed before the run. Losses of hundreds
    at the rim outweigh all else in it, which is why the next two and `recomputed` are there), `roughness_inner` (of its middle 11×11 points, -0.5 to 0.5),
    `roughness_log` (of the logarithm of the plane's losses, which the steep rim does not dominate);
    `sharpness`: {'0.1': v, '0.5': v}, the mean rise of the loss at those distances, over 10 random filter-normalised directions, both ways;
    `recomputed`: the same plane with `batchnorm='recompute'`, which keeps the losses low (each point with the statistics of its own activations, over the 256 letters):
    dict(roughness, roughness_inner, roughness_log, low, high);
    `seconds` of training and of measuring together, on one thread that shares its machine.
    None for the measures where the training diverged.
  - `plane`: of seed 0: `xs`, `ys` (21 each), `loss` (21 rows, one per y, of 21 losses, 4 significant digits; None where not finite),
    `center`, `cosine`. `LossPlane(np.array(xs), np.array(ys), np.array(loss, float), center, cosine=cosine, done=441)` draws it.
  - `plane_recomputed`: of seed 0, the same with `batchnorm='recompute'`; `center` is its own.
- `differences`: per measure ('roughness', 'roughness_inner', 'roughness_log', 'sharpness 0.1', 'sharpness 0.5', 'recomputed roughness',
  'recomputed roughness_inner', 'recomputed roughness_log', 'test_accuracy', 'train_loss'), plain minus skips at 32 layers, paired by seed: dict(each=[5 numbers], mean, low, high): the mean and its 95 % interval (paired t).
- `differences_14`: the same at 14 layers.
- `cpu_seconds`: processor time of the whole run (sweep, trials, planes; some trials, made twice, count twice)."""
import json, math, time
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as student
from torch import nn
from torch.nn import functional as F

from dlpractice.data import Batches, channel_stats, glyphs
from dlpractice.loss_planes import LossPlane, loss_plane, roughness, sharpness
from dlpractice.runs import code_hashes, save_run
from dlpractice.snapshots import seeded

LETTERS = 'abdeghknrs'
ARMS = {'skips': (15, True), 'plain': (15, False), 'skips 14': (6, True), 'plain 14': (6, False), 'shallow': (1, False)} # blocks, with skip connections?
RATES = [float(f'{lr:.3g}') for lr in np.geomspace(0.01, 1, 5)]
SEEDS, SWEEP_SEED = (0, 1, 2, 3, 4), 100
TRAIN, VALID, TEST, BATCH, EPOCHS = 2000, 1000, 3000, 64, 15
POINTS, SPAN, IMAGES, WIDTH = 21, 1., 256, 16
CODE = ('dlpractice.data:glyphs', 'dlpractice.data:Batches', 'dlpractice.directions:normalised', 'dlpractice.directions:random_direction',
        'dlpractice.directions:moving', 'dlpractice.loss_evaluation:LossSurface', *(f'dlpractice.loss_planes:{n}'
        for n in ('LossPlane', 'loss_plane', 'loss_line', 'roughness', 'sharpness')))


@lru_cache(None)
def letters():
    "(train, valid, test), each (images, labels), normalised by the training letters."
    draws = [glyphs(n, script=LETTERS, size=16, seed=s) for n, s in ((TRAIN, 1), (VALID, 2), (TEST, 3))]
    stats = channel_stats(draws[0].images)
    return tuple((d.floats(*stats), d.labels) for d in draws)


class Block(nn.Module):
    "Two 3×3 convolutions with BatchNorm, with or without a skip connection around them."
    def __init__(self, width, skip):
        super().__init__()
        self.main = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
                                  nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.skip = skip

    def forward(self, x): return F.relu(self.main(x) + x if self.skip else self.main(x))


def net(arm, seed):
    "The arm's net, its weights drawn from the seed."
    blocks, skip = ARMS[arm]
    with seeded(seed):
        return nn.Sequential(nn.Conv2d(1, WIDTH, 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU(), *(Block(WIDTH, skip) for _ in range(blocks)),
                             nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, len(LETTERS)))


def trained(arm, rate, seed):
    "The arm's net after training, in eval mode; None where the loss stops being finite."
    model, batches = net(arm, seed), Batches(*letters()[0], size=BATCH, generator=torch.Generator().manual_seed(seed))
    opt = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
    total, step = EPOCHS*len(batches), 0
    for x, y in (b for _ in range(EPOCHS) for b in batches):
        opt.param_groups[0]['lr'] = rate*(1 - step/total)
        loss = F.cross_entropy(model(x), y)
        if not torch.isfinite(loss): return None
        opt.zero_grad()
        loss.backward()
        opt.step()
        step += 1
    return model.eval()


@torch.no_grad()
def scores(model, name, data):
    "Loss and accuracy on `data`; None where there is no model."
    if model is None: return {f'{name}_loss': None, f'{name}_accuracy': None}
    pred, y = torch.cat([model(x) for x in data[0].split(500)]), data[1]
    return {f'{name}_loss': plain(F.cross_entropy(pred, y)), f'{name}_accuracy': float((pred.argmax(1) == y).float().mean())}


def plain(v, digits=4):
    "A number with few digits; None where it is not finite."
    return float(f'{float(v):.{digits}g}') + 0. if math.isfinite(v) else None # + 0.: no -0.0


def swept(arm, rate, _):
    "One run of the sweep: what the choice of a rate may see."
    train, valid, _ = letters()
    model = trained(arm, rate, SWEEP_SEED)
    return scores(model, 'train', train) | scores(model, 'valid', valid)


def bends(plane):
    "Three roughnesses of a plane, and its range."
    quarter = (POINTS - 1)//4
    mid = slice(quarter, POINTS - quarter)
    inner = LossPlane(plane.xs[mid], plane.ys[mid], plane.loss[mid, mid], plane.center)
    logs = LossPlane(plane.xs, plane.ys, np.log(plane.loss), math.log(plane.center))
    return dict(roughness=plain(roughness(plane)), roughness_inner=plain(roughness(inner)), roughness_log=plain(roughness(logs)),
                low=plain(np.nanmin(plane.loss)), high=plain(np.nanmax(plane.loss)))


def drawn(p):
    "A plane as it is stored."
    return dict(xs=[plain(v) for v in p.xs], ys=[plain(v) for v in p.ys], loss=[[plain(v) for v in row] for row in p.loss],
                center=plain(p.center), cosine=plain(p.cosine))


def trial(arm, rate, seed):
    "Train, draw the plane, measure it."
    start, (train, _, test) = time.time(), letters()
    model, batch = trained(arm, rate, seed), tuple(t[:IMAGES] for t in train)
    out = dict(seed=seed, **scores(model, 'train', train), **scores(model, 'test', test))
    if model is None: return out
    look = dict(span=SPAN, n=POINTS, seed=seed, progress=False)
    p = loss_plane(model, F.cross_entropy, batch, **look)
    out |= dict(center=plain(p.center), cosine=plain(p.cosine), **bends(p),
                sharpness={str(r): plain(sharpness(model, F.cross_entropy, batch, radius=r)) for r in (0.1, 0.5)})
    again = loss_plane(model, F.cross_entropy, batch, batchnorm='recompute', **look)
    out['recomputed'] = bends(again)
    if seed == 0: out |= dict(plane=drawn(p), plane_recomputed=drawn(again))
    return out | dict(seconds=round(time.time() - start, 1))


def best(sweep):
    "Index of the run with the best validation accuracy; the smaller loss where two are equal."
    return max(range(len(sweep)), key=lambda i: (sweep[i]['valid_accuracy'] or 0, -(sweep[i]['valid_loss'] or math.inf)))


def difference(a, b):
    "a minus b per seed, its mean and the 95 % interval of the mean."
    if None in a + b: return dict(each=None, mean=None, low=None, high=None)
    d = np.array(a) - np.array(b)
    half = student.ppf(0.975, len(d) - 1)*d.std(ddof=1)/len(d)**0.5
    return dict(each=[plain(v) for v in d], mean=plain(d.mean()), low=plain(d.mean() - half), high=plain(d.mean() + half))


def measure(trial, name):
    kind, _, radius = name.partition(' ')
    return trial.get(kind) if not radius else trial.get(kind, {}).get(radius)


def main():
    torch.set_num_threads(1)
    start, path = time.time(), Path('landscape_skips.part')
    code = code_hashes('landscape_skips.py', *CODE)
    done = json.loads(path.read_text()) if path.exists() else dict(cpu=0.)
    def get(*job):
        "The job's value, kept on disk: an interrupted run goes on."
        if (key := json.dumps(job)) not in done:
            begun = time.process_time()
            done[key] = globals()[job[0]](*job[1:])
            done['cpu'] += time.process_time() - begun
            path.write_text(json.dumps(done))
            print(*job, {k: v for k, v in done[key].items() if k[:5] != 'plane'}, flush=True)
        return done[key]
    arms = {}
    for arm in ARMS:
        sweep = [get('swept', arm, lr, SWEEP_SEED) for lr in RATES]
        arms[arm] = dict(sweep=sweep, rate=RATES[best(sweep)], at_edge=best(sweep) in (0, len(RATES) - 1))
    for arm, seed in ((a, s) for s in SEEDS for a in ARMS): arms[arm].setdefault('trials', []).append(get('trial', arm, arms[arm]['rate'], seed))
    for a in arms.values(): a.update({k: a['trials'][0].pop(k, None) for k in ('plane', 'plane_recomputed')})
    names = 'roughness', 'roughness_inner', 'roughness_log', 'sharpness 0.1', 'sharpness 0.5', *(f'recomputed {n}' for n in ('roughness', 'roughness_inner', 'roughness_log')), 'test_accuracy', 'train_loss'
    differences, differences_14 = ({n: difference(*([measure(t, n) for t in arms[a + depth]['trials']] for a in ('plain', 'skips'))) for n in names} for depth in ('', ' 14'))
    settings = dict(train=TRAIN, valid=VALID, test=TEST, batch=BATCH, epochs=EPOCHS, points=POINTS, span=SPAN, images=IMAGES,
                    layers={a: 2*b + 2 for a, (b, _) in ARMS.items()}, parameters={a: sum(p.numel() for p in net(a, 0).parameters()) for a in ARMS})
    save_run('landscape_skips.json', dict(settings=settings, rates=RATES, arms=arms, differences=differences, differences_14=differences_14, cpu_seconds=round(done['cpu'])),
             code=code, seeds=list(SEEDS), seconds=time.time() - start)
    path.unlink()


if __name__ == '__main__': main()
