"""Is a sharp minimum one that generalises badly? Batch sizes and rates, at one training loss.

A small CNN without BatchNorm (three 3×3 convolutions of stride 2 with 16, 32 and 64 channels, ReLU, a linear layer; 25,866 weights) learns
ten letters of 16×16 pixels from only 1,024 of them, so that it learns them by heart and fails on others. SGD with momentum 0.9, a constant rate, no weight
decay, batches of 16, 64, 256 and 1024 (the whole set). Training stops where the loss over the whole training set is at most 0.02 (looked at
every 4 steps, every step with 256 and more), so that all solutions fit the data equally well; a run that is not there after 4,000 steps or 800,000 pictures, or whose loss is not
finite, is left out. That rule was fixed before the first run. Each batch size gets its rate from a sweep of five, 0.005 to 0.5, with
one seed (100) that is not among the trials': of the runs that reached 0.02, the best accuracy on 1,000 validation letters. Trials: a third of that rate, the rate, and twice it, 5 seeds (of the weights and
of the batches' order; the letters are the same for all): 4 × 3 × 5 = 60 runs.

Measured where training stopped, over the training set: `sharpness` (mean rise of the loss at distance 0.1, and 0.5, over 10 random filter-normalised
directions, both ways), and the largest eigenvalue of the Hessian. The gap: test minus training loss, and training minus test accuracy.

Stored in `results`:
- `settings`: train, valid, test, target, batches (list), factors (list), most_steps, most_images, parameters, radii.
- `rates`: the five rates of the sweep. `sweep`: {batch size as str: per rate dict(train_loss, valid_loss, valid_accuracy, steps, reached)}.
- `chosen`: {batch size as str: rate}; `at_edge`: {batch size as str: is it the first or last rate that reached the target?}.
- `runs`: 60 dicts: `batch`, `factor` (1/3, 1, 2 of the chosen rate, as 0.333, 1.0, 2.0), `rate`, `seed`, `steps`, `reached` (bool); and where it was reached
  `train_loss`, `train_accuracy`, `test_loss`, `test_accuracy`, `loss_gap`, `accuracy_gap`, `sharpness` {'0.1': v, '0.5': v}, `eigenvalue`, `eigenvalue_error`.
- `left_out`: list of dict(batch, factor, rate, seed, why), why being 'diverged' or 'too slow'.
- `correlations`: {measure: {outcome: dict}} for the measures 'sharpness 0.1', 'sharpness 0.5', 'eigenvalue', 'batch', 'rate', 'train_loss' and the outcomes
  'loss_gap', 'accuracy_gap', 'test_accuracy': `spearman` (rank correlation over all runs that were kept), `low`, `high` (95 % percentile interval, 2,000 bootstrap draws of
  runs), `settings_low`, `settings_high` (the same, drawing whole settings of batch and factor: the five seeds of one are not independent of each other),
  `by_seed` (the correlation among the runs of each seed), `mean`, `mean_low`, `mean_high` (their mean, and its 95 % t interval).
  'Flat generalises better' means a positive correlation with a gap, and a negative one with test accuracy. 'train_loss' tells whether what is left of unequal fits explains it.
- `within_batch`: {measure: {batch size as str: Spearman correlation with `loss_gap` among the runs of one batch size}}: without what differs between batch sizes.
- `n`: runs kept. `cpu_seconds`: processor time of the whole run."""
import json, math, time
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata, t as student
from torch import nn
from torch.nn import functional as F

from dlpractice.data import Batches, channel_stats, glyphs
from dlpractice.hessian import curvature
from dlpractice.loss_planes import sharpness
from dlpractice.runs import code_hashes, save_run
from dlpractice.snapshots import seeded

LETTERS = 'abdeghknrs'
BATCHES, FACTORS, SEEDS, SWEEP_SEED = (16, 64, 256, 1024), (1/3, 1., 2.), (0, 1, 2, 3, 4), 100
RATES = [float(f'{lr:.3g}') for lr in np.geomspace(0.005, 0.5, 5)]
TRAIN, VALID, TEST, TARGET, MOST_STEPS, MOST_IMAGES = 1024, 1000, 3000, 0.02, 4000, 800_000
RADII, DRAWS = (0.1, 0.5), 2000
MEASURES = 'sharpness 0.1', 'sharpness 0.5', 'eigenvalue', 'batch', 'rate', 'train_loss'
OUTCOMES = 'loss_gap', 'accuracy_gap', 'test_accuracy'
CODE = ('dlpractice.data:glyphs', 'dlpractice.data:Batches', 'dlpractice.directions:normalised', 'dlpractice.directions:random_direction',
        'dlpractice.directions:moving', 'dlpractice.loss_evaluation:LossSurface', 'dlpractice.loss_planes:loss_line', 'dlpractice.loss_planes:sharpness',
        'dlpractice.hessian:curvature', 'dlpractice.hessian:hessian_product', 'dlpractice.hessian:HessianProduct', 'dlpractice.lanczos:Lanczos')


@lru_cache(None)
def letters():
    "(train, valid, test), each (images, labels), normalised by the training letters."
    draws = [glyphs(n, script=LETTERS, size=16, seed=s) for n, s in ((TRAIN, 1), (VALID, 2), (TEST, 3))]
    stats = channel_stats(draws[0].images)
    return tuple((d.floats(*stats), d.labels) for d in draws)


def net(seed):
    "Three convolutions and a linear layer."
    with seeded(seed):
        return nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(),
                             nn.Flatten(), nn.Linear(256, len(LETTERS)))


@torch.no_grad()
def scores(model, data):
    "(loss, accuracy) on `data`."
    pred = model(data[0])
    return F.cross_entropy(pred, data[1]).item(), float((pred.argmax(1) == data[1]).float().mean())


def trained(batch, rate, seed):
    "(model, steps, why it stopped: 'reached', 'diverged' or 'too slow')."
    model, step, recent, some = net(seed), 0, [], max(1, 256//batch)
    loader = Batches(*letters()[0], size=batch, generator=torch.Generator().manual_seed(seed))
    opt = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    while True:
        for x, y in loader:
            loss = F.cross_entropy(model(x), y)
            if not torch.isfinite(loss): return model, step, 'diverged'
            opt.zero_grad()
            loss.backward()
            opt.step()
            step, recent = step + 1, [*recent, loss.item()][-some:]
            near = step % min(4, some) == 0 and sum(recent)/len(recent) < 4*TARGET # looking at the whole set costs more than a step of a small batch
            if near and scores(model, letters()[0])[0] <= TARGET: return model, step, 'reached'
            if step >= MOST_STEPS or step*batch >= MOST_IMAGES: return model, step, 'too slow'


def plain(v, digits=4):
    "A number with few digits; None where it is not finite."
    return float(f'{float(v):.{digits}g}') + 0. if math.isfinite(v) else None # + 0.: no -0.0


def swept(batch, rate):
    "One run of the sweep: what the choice of a rate may see."
    model, steps, end = trained(batch, rate, SWEEP_SEED)
    loss, accuracy = scores(model, letters()[1])
    return dict(train_loss=plain(scores(model, letters()[0])[0]), valid_loss=plain(loss), valid_accuracy=accuracy, steps=steps, reached=end == 'reached')


def trial(batch, factor, rate, seed):
    "Train to the target, and measure."
    model, steps, end = trained(batch, rate, seed)
    out = dict(batch=batch, factor=plain(factor, 3), rate=plain(rate), seed=seed, steps=steps, reached=end == 'reached')
    if end != 'reached': return out | dict(why=end)
    train, _, test = letters()
    (loss, accuracy), (test_loss, test_accuracy) = scores(model, train), scores(model, test)
    c = curvature(model, F.cross_entropy, train, k=1, probes=0, steps=60, tol=1e-2, progress=False)
    return out | dict(train_loss=plain(loss), train_accuracy=accuracy, test_loss=plain(test_loss), test_accuracy=test_accuracy,
                      loss_gap=plain(test_loss - loss), accuracy_gap=plain(accuracy - test_accuracy),
                      sharpness={str(r): plain(sharpness(model, F.cross_entropy, train, radius=r)) for r in RADII},
                      eigenvalue=plain(c.top[0]), eigenvalue_error=plain(c.top_error[0]))


def best(sweep):
    "Index of the best validation accuracy among the runs that reached the target."
    return max((i for i, s in enumerate(sweep) if s['reached']), key=lambda i: (sweep[i]['valid_accuracy'], -sweep[i]['valid_loss']))


def measure(run, name):
    kind, _, radius = name.partition(' ')
    return run[kind][radius] if radius else run[kind]


def rank_correlation(a, b):
    "Spearman's, NaN where one of them does not vary."
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1]) if np.ptp(a) and np.ptp(b) else math.nan


def correlation(runs, name, outcome):
    "All that is stored of one measure and one outcome."
    a, b = np.array([measure(r, name) for r in runs]), np.array([measure(r, outcome) for r in runs])
    rng, groups = np.random.default_rng(0), {}
    for i, r in enumerate(runs): groups.setdefault((r['batch'], r['factor']), []).append(i)
    groups = [np.array(g) for g in groups.values()]
    def interval(draw): return [plain(q) for q in np.nanpercentile([rank_correlation(a[i], b[i]) for i in (draw() for _ in range(DRAWS))], [2.5, 97.5])]
    low, high = interval(lambda: rng.integers(len(runs), size=len(runs)))
    settings_low, settings_high = interval(lambda: np.concatenate([groups[g] for g in rng.integers(len(groups), size=len(groups))]))
    of_seed = [np.array([i for i, r in enumerate(runs) if r['seed'] == s]) for s in SEEDS]
    by_seed = np.array([rank_correlation(a[i], b[i]) for i in of_seed])
    half = student.ppf(0.975, len(by_seed) - 1)*by_seed.std(ddof=1)/len(by_seed)**0.5
    return dict(spearman=plain(rank_correlation(a, b)), low=low, high=high, settings_low=settings_low, settings_high=settings_high,
                by_seed=[plain(v) for v in by_seed], mean=plain(by_seed.mean()), mean_low=plain(by_seed.mean() - half), mean_high=plain(by_seed.mean() + half))


def within(runs, name):
    "The correlation with the gap of the loss, per batch size."
    parts = {str(b): [r for r in runs if r['batch'] == b] for b in BATCHES}
    return {b: plain(rank_correlation([measure(r, name) for r in part], [r['loss_gap'] for r in part])) for b, part in parts.items()}


def main():
    torch.set_num_threads(1)
    start, path = time.time(), Path('landscape_sharpness.part')
    code = code_hashes('landscape_sharpness.py', *CODE)
    done = json.loads(path.read_text()) if path.exists() else dict(cpu=0.)
    def get(*job):
        "The job's value, kept on disk: an interrupted run goes on."
        if (key := json.dumps(job)) not in done:
            begun = time.process_time()
            done[key] = globals()[job[0]](*job[1:])
            done['cpu'] += time.process_time() - begun
            path.write_text(json.dumps(done))
            print(*job, done[key], flush=True)
        return done[key]
    sweep = {str(b): [get('swept', b, lr) for lr in RATES] for b in BATCHES}
    chosen = {b: RATES[best(s)] for b, s in sweep.items()}
    reached = {b: [lr for lr, o in zip(RATES, s) if o['reached']] for b, s in sweep.items()}
    at_edge = {b: lr in (reached[b][0], reached[b][-1]) for b, lr in chosen.items()}
    runs = [get('trial', b, f, chosen[str(b)]*f, s) for s in SEEDS for b in BATCHES for f in FACTORS]
    left_out = [{k: r[k] for k in ('batch', 'factor', 'rate', 'seed', 'why')} for r in runs if not r['reached']]
    kept = [r for r in runs if r['reached']]
    settings = dict(train=TRAIN, valid=VALID, test=TEST, target=TARGET, batches=BATCHES, factors=[plain(f, 3) for f in FACTORS], most_steps=MOST_STEPS,
                    most_images=MOST_IMAGES, parameters=sum(p.numel() for p in net(0).parameters()), radii=RADII)
    results = dict(settings=settings, rates=RATES, sweep=sweep, chosen=chosen, at_edge=at_edge, runs=runs, left_out=left_out, n=len(kept),
                   correlations={m: {o: correlation(kept, m, o) for o in OUTCOMES} for m in MEASURES}, within_batch={m: within(kept, m) for m in MEASURES[:3]},
                   cpu_seconds=round(done['cpu']))
    save_run('landscape_sharpness.json', results, code=code, seeds=list(SEEDS), seconds=time.time() - start)
    path.unlink()


if __name__ == '__main__': main()
