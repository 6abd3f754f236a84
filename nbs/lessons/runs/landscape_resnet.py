"""The loss around a ResNet18 that learned from photos of garments.

Needs `real('clothing')`; no photo is stored. torchvision's ResNet18 (11 million weights) from scratch, 48×48 pixels, 10 classes, 3,068
photos, random flips, batches of 32, 8 epochs of AdamW (weight decay 0.01), the rate falling in a straight line to zero from 1e-3, the best of
the sweep in `lr_clothing.json` (of a smaller ResNet at 64 pixels: this one's own would take seven such runs). One seed: the run takes about 10 minutes on one thread.

The plane: 21×21 points from -1 to 1, two random filter-normalised directions, biases and BatchNorm's weights unmoved, BatchNorm with its
running statistics, the loss over 200 training photos (without flips). The lines: through the same point along the eigenvectors of the
Hessian's two largest eigenvalues (of the loss over the same photos), scaled to the length of all parameters together, 21 points on
so short a way that the quadratic of the largest eigenvalue rises by 5 at its ends.

Stored in `results`:
- `settings`: size (pixels), epochs, batch, rate, weight_decay, points, span, images, train, valid, test (photos), parameters, line_points, line_rise (5).
- `epochs`: per epoch dict(train_loss, valid_accuracy): the mean loss of the epoch's batches (in training mode), and the accuracy after it.
- `train`, `valid`, `test`: dict(loss, accuracy) of the model at the end, in eval mode, without flips; `majority`: share of the largest class among the test photos.
- `plane`: `xs`, `ys` (21 each), `loss` (21 rows, one per y, of 21 losses, 4 significant digits; None where not finite), `center` (the
  model's own loss on the 200 photos, from a call of the model, 8 digits), `middle` (the plane's value at (0, 0), 8 digits), `cosine` (of the two directions), `lengths` (of one unit along each, in
  parameter space), `roughness`, `roughness_inner` (its middle 11×11 points), `roughness_log` (of the logarithm), `low`, `high`, `seconds`.
  `LossPlane(np.array(xs), np.array(ys), np.array(loss, float), center, cosine=cosine, done=441)` draws it.
- `sharpness`: {'0.1': v, '0.5': v}: mean rise of the loss at those distances, over 10 random filter-normalised directions, both ways.
- `hessian`: `top`, `top_error` (the two largest eigenvalues, and how near an eigenvalue lies), `bottom`, `bottom_error` (the two smallest), `gradient_norm`, `products` (Hessian-vector products), `seconds`,
  `length`: of all parameters together, which is one unit of the lines' coordinates; `span`: the lines run from -span to span;
  `lines`: per eigenvector dict(xs, loss), 21 each, to be drawn against `random_line`: dict(xs, loss), along one random direction in which all parameters move, of the same
  length. The quadratic of eigenvalue e is center + e/2·(x·length)² where the gradient is left out.
- `cpu_seconds`: processor time of the whole run; `train_seconds`: of the training."""
import math, time
from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional as F
from torchvision.models import resnet18

from dlpractice.data import Batches, channel_stats, real
from dlpractice.hessian import curvature
from dlpractice.loss_planes import LossPlane, loss_line, loss_plane, roughness, sharpness
from dlpractice.runs import code_hashes, save_run
from dlpractice.snapshots import seeded

SIZE, EPOCHS, BATCH, RATE, DECAY, SEED = 48, 8, 32, 1e-3, 0.01, 0
POINTS, SPAN, IMAGES, LINE_POINTS, LINE_RISE, STEPS = 21, 1., 200, 21, 5., 30
CODE = ('dlpractice.directions:normalised', 'dlpractice.directions:random_direction', 'dlpractice.directions:moving',
        'dlpractice.loss_evaluation:LossSurface', *(f'dlpractice.loss_planes:{n}' for n in ('LossPlane', 'loss_plane', 'loss_line', 'roughness', 'sharpness')),
        'dlpractice.hessian:curvature', 'dlpractice.hessian:hessian_product', 'dlpractice.hessian:HessianProduct', 'dlpractice.lanczos:Lanczos')


@lru_cache(None)
def photos():
    "{split: (images, labels)}, normalised by the training photos."
    found = {s: real('clothing', s, SIZE) for s in ('train', 'valid', 'test')}
    stats = channel_stats(found['train'].images)
    return {s: (d.floats(*stats), d.labels) for s, d in found.items()}


def flipped(x, y):
    "Half of the pictures mirrored."
    return torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(-1), x), y


@torch.no_grad()
def scores(model, data):
    "Loss and accuracy on `data`, in eval mode."
    model.eval()
    pred, y = torch.cat([model(x) for x in data[0].split(200)]), data[1]
    return dict(loss=plain(F.cross_entropy(pred, y)), accuracy=float((pred.argmax(1) == y).float().mean()))


def plain(v, digits=4):
    "A number with few digits; None where it is not finite."
    return float(f'{float(v):.{digits}g}') + 0. if math.isfinite(v) else None # + 0.: no -0.0


def plains(values): return [plain(v) for v in values]


def trained():
    "The net, and what each epoch brought."
    with seeded(SEED): model = resnet18(num_classes=10)
    batches = Batches(*photos()['train'], size=BATCH, generator=torch.Generator().manual_seed(SEED), transform=flipped)
    opt = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    total, step, epochs = EPOCHS*len(batches), 0, []
    with seeded(SEED):
        for k in range(EPOCHS):
            losses = []
            model.train()
            for x, y in batches:
                opt.param_groups[0]['lr'] = RATE*(1 - step/total)
                loss = F.cross_entropy(model(x), y)
                opt.zero_grad()
                loss.backward()
                opt.step()
                step += 1
                losses.append(loss.item())
            epochs.append(dict(train_loss=plain(np.mean(losses)), valid_accuracy=scores(model, photos()['valid'])['accuracy']))
            print(k, epochs[-1], flush=True)
    return model.eval(), epochs


def bends(plane):
    "Three roughnesses of a plane, and its range."
    quarter = (POINTS - 1)//4
    mid = slice(quarter, POINTS - quarter)
    inner = LossPlane(plane.xs[mid], plane.ys[mid], plane.loss[mid, mid], plane.center)
    logs = LossPlane(plane.xs, plane.ys, np.log(plane.loss), math.log(plane.center))
    return dict(roughness=plain(roughness(plane)), roughness_inner=plain(roughness(inner)), roughness_log=plain(roughness(logs)),
                low=plain(np.nanmin(plane.loss)), high=plain(np.nanmax(plane.loss)))


def drawn(model, batch):
    "The plane, with all that is stored of it."
    start = time.time()
    p = loss_plane(model, F.cross_entropy, batch, span=SPAN, n=POINTS, seed=SEED, progress=False)
    with torch.no_grad(): own = F.cross_entropy(model(batch[0]), batch[1]).item()
    return dict(xs=plains(p.xs), ys=plains(p.ys), loss=[plains(row) for row in p.loss], center=plain(own, 8),
                middle=plain(p.loss[POINTS//2, POINTS//2], 8), cosine=plain(p.cosine), lengths=plains(p.lengths), **bends(p), seconds=round(time.time() - start))


def curved(model, batch):
    "The Hessian's ends, and the loss along its two sharpest directions and a random one."
    start = time.time()
    c = curvature(model, F.cross_entropy, batch, k=2, probes=0, steps=STEPS, tol=1e-2, vectors=True, progress=False)
    length = math.sqrt(sum(p.detach().double().square().sum().item() for p in model.parameters()))
    span = math.sqrt(2*LINE_RISE/float(c.top[0]))/length
    look = dict(normalise='model', span=span, n=LINE_POINTS, progress=False)
    lines = [loss_line(model, F.cross_entropy, batch, direction=d, **look) for d in c.top_vectors]
    lines = [dict(xs=plains(o.xs), loss=[plain(v, 6) for v in o.loss]) for o in lines + [loss_line(model, F.cross_entropy, batch, seed=SEED, move='all', **look)]]
    ends = {k: plains(getattr(c, k)) for k in ('top', 'top_error', 'bottom', 'bottom_error')}
    return dict(**ends, gradient_norm=plain(c.gradient_norm), products=c.products, length=plain(length), span=plain(span), lines=lines[:2], random_line=lines[2], seconds=round(time.time() - start))


def main():
    torch.set_num_threads(1)
    start, code = time.time(), code_hashes('landscape_resnet.py', *CODE)
    model, epochs = trained()
    train_seconds = time.time() - start
    batch = tuple(t[:IMAGES] for t in mixed(photos()['train']))
    results = dict(epochs=epochs, **{s: scores(model, photos()[s]) for s in ('train', 'valid', 'test')},
                   majority=plain(photos()['test'][1].bincount().max()/len(photos()['test'][1])), plane=drawn(model, batch),
                   sharpness={str(r): plain(sharpness(model, F.cross_entropy, batch, radius=r, samples=10)) for r in (0.1, 0.5)}, hessian=curved(model, batch))
    settings = dict(size=SIZE, epochs=EPOCHS, batch=BATCH, rate=RATE, weight_decay=DECAY, points=POINTS, span=SPAN, images=IMAGES,
                    parameters=sum(p.numel() for p in model.parameters()), line_points=LINE_POINTS, line_rise=LINE_RISE, **{s: len(d[1]) for s, d in photos().items()})
    save_run('landscape_resnet.json', dict(settings=settings, **results, cpu_seconds=round(time.process_time()), train_seconds=round(train_seconds)),
             code=code, seeds=[SEED], seconds=time.time() - start)


def mixed(data):
    "The photos lie class by class: another order."
    order = torch.randperm(len(data[1]), generator=torch.Generator().manual_seed(SEED))
    return tuple(t[order] for t in data)


if __name__ == '__main__': main()
