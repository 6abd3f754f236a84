"""What augmentation does to a small net on letters: over the size of the training set, each augmentation alone, flips on letters that bear them.

A net of three strided 3×3 convolutions (16, 32, 64 channels, BatchNorm, mean over the picture, a linear layer) learns ten letters of 16×16 pixels,
'abdegknpqs' of the glyph world's level 'easy', among them b, d, p and q, which are mirror images of each other in many fonts. Every run takes 300 steps
of AdamW with batches of 32, the rate falling in a straight line to zero: runs cost the same, whatever the size of their training set. For 'none' and
'affine' the rate at each size is the one of three with the best accuracy on 1,000 validation letters, with one seed (100) that is not among those of the trials; all other arms
take the rate of 'none' at their size, so that the comparison is tuned for the net without augmentation.
Tested on 2,000 letters, without augmentation; the same letters train all arms of a seed, from the same initial weights.

Stored in `results`:
- `settings`: letters, mirrored (ten capitals that are their own mirror images), sizes, steps, batch, rates, alone_size, arms {name: what it is}.
- `rates`: {arm at size: rate}, by the sweep; `sweeps`: {arm at size: [validation accuracy per rate]}.
- `sizes`: {arm: {size: [per seed: trial]}} for 'none' and 'affine'.
- `alone`: {arm: [per seed: trial]}, all with `alone_size` training pictures; 'none' too.
- `mirrored`: {'none' or 'flip': [per seed: trial]}, the same with the capitals.
  A trial is dict(train, test: accuracies in [0, 1] on at most 2,000 training letters as they are, and on the test letters; curve: test accuracy after each 50 steps,
  on 1,000 of the test letters; pairs: share of the test letters b, d, p, q that are taken for one of the other three; None for the capitals).
- `cpu_seconds`: processor time of the whole run."""
import json, time
from functools import lru_cache
from pathlib import Path

import torch
from torch.nn import functional as F

from dlpractice.augment import Affine, Augment, ColourJitter, CutMix, Cutout, Flip, Mixup, Noise, ResizedCrop, Rotate
from dlpractice.data import Batches, channel_stats, glyphs
from dlpractice.runs import code_hashes, save_run
from dlpractice.small_tasks import cnn, falling
from dlpractice.snapshots import seeded

LETTERS, MIRRORED, MIRRORS = 'abdegknpqs', 'AHIMOTUVWX', 'bdpq'
SIZES, ALONE, STEPS, BATCH, RATES, SEEDS, SWEEP_SEED = (125, 500, 2000, 8000), 500, 300, 32, (0.01, 0.03, 0.1), (0, 1, 2, 3, 4), 100
AFFINE = dict(degrees=15, translate=(0.1, 0.1), scale=(0.85, 1.15), shear=10)
ARMS = {'none': lambda: [], 'affine': lambda: [Affine(**AFFINE)], 'rotate': lambda: [Rotate(15)], 'crop': lambda: [ResizedCrop(scale=(0.5, 1.))], 'noise': lambda: [Noise((0., 0.1))],
        'colour': lambda: [ColourJitter(0.4, 0.4)], 'cutout': lambda: [Cutout(0.5)], 'mixup': lambda: [Mixup(10, 0.4)], 'cutmix': lambda: [CutMix(10)], 'flip': lambda: [Flip(0.5)]}
CODE = ('dlpractice.augment:Augment', 'dlpractice.augmentations:Affine', 'dlpractice.affine_maps:resample', 'dlpractice.crops:draw_crops', 'dlpractice.mixing:mix', 'dlpractice.mixing:draw_shares',
        'dlpractice.small_tasks:cnn', 'dlpractice.data:glyphs', 'dlpractice.data:Batches')


@lru_cache(None)
def pictures(letters, size, seed):
    "(train, valid, test): pictures, bytes, and labels."
    draw = lambda n, k: glyphs(n, script=letters, size=16, level='easy', seed=3*seed + k)
    return tuple((d.images, d.labels) for d in (draw(size, 0), draw(1000, 1), draw(2000, 2)))


@torch.no_grad()
def said(net, images, stats):
    "Predicted classes, in evaluation mode; the net is in training mode afterwards."
    net.eval()
    found = torch.cat([net(Augment(normalise=stats)(x)).argmax(1) for x in images.split(500)])
    net.train()
    return found


def trained(letters, arm, size, rate, seed):
    "One training run, and what came of it."
    train, valid, test = pictures(letters, size, seed)
    stats = channel_stats(train[0])
    augment = Augment(*ARMS[arm](), normalise=stats)
    batches, curve, step = Batches(*train, size=min(BATCH, size), drop_last=True, generator=torch.Generator().manual_seed(seed)), [], 0
    with seeded(seed):
        net = cnn(1, 10, (16, 32, 64))
        opt = torch.optim.AdamW(net.parameters(), lr=rate)
        while step < STEPS:
            for x, y in batches:
                opt.param_groups[0]['lr'] = rate*falling(step/STEPS)
                x, y = augment(x, y)
                loss = F.cross_entropy(net(x), y)
                opt.zero_grad()
                loss.backward()
                opt.step()
                step += 1
                if step % 50 == 0: curve.append(right(said(net, test[0][:1000], stats), test[1][:1000]))
                if step == STEPS: break
    pred, pairs = said(net, test[0], stats), None
    if letters == LETTERS:
        ours = torch.tensor([letters.index(c) for c in MIRRORS])
        among = torch.isin(test[1], ours)
        pairs = round((torch.isin(pred, ours) & (pred != test[1]))[among].float().mean().item(), 4)
    return dict(train=right(said(net, train[0][:2000], stats), train[1][:2000]), valid=right(said(net, valid[0], stats), valid[1]), test=right(pred, test[1]), curve=curve, pairs=pairs)


def right(pred, y): return round((pred == y).float().mean().item(), 4)


def main():
    torch.set_num_threads(1)
    start, path = time.time(), Path('augmentation.part')
    code = code_hashes('augmentation.py', *CODE)
    done = json.loads(path.read_text()) if path.exists() else dict(cpu=0.)
    def get(*job):
        "The job's value, kept on disk: an interrupted run goes on."
        if (key := json.dumps(job)) not in done:
            begun = time.process_time()
            done[key] = trained(*job)
            done['cpu'] += time.process_time() - begun
            path.write_text(json.dumps(done))
            print(*job, done[key], flush=True)
        return done[key]
    grid = [(LETTERS, arm, n) for arm in ('none', 'affine') for n in SIZES]
    jobs = grid + [(LETTERS, arm, ALONE) for arm in ARMS if arm not in ('none', 'affine')] + [(MIRRORED, arm, ALONE) for arm in ('none', 'flip')]
    sweeps = {job: [get(*job, rate, SWEEP_SEED)['valid'] for rate in RATES] for job in grid}
    rates = {job: RATES[max(range(len(RATES)), key=lambda i: v[i])] for job, v in sweeps.items()}
    trials, name = {}, lambda job: f'{job[1]} at {job[2]}' + (' of capitals' if job[0] == MIRRORED else '')
    settings = dict(letters=LETTERS, mirrored=MIRRORED, sizes=SIZES, steps=STEPS, batch=BATCH, rates=RATES, alone_size=ALONE, arms={a: ', '.join(map(repr, f())) for a, f in ARMS.items()})
    for i, seed in enumerate(SEEDS): # what is done is saved after each seed
        for job in jobs: trials.setdefault(job, []).append(get(*job, rates.get(job, rates[LETTERS, 'none', ALONE]), seed))
        save_run('augmentation.json', dict(settings=settings, rates={name(j): r for j, r in rates.items()}, sweeps={name(j): v for j, v in sweeps.items()},
                 sizes={arm: {str(n): trials[LETTERS, arm, n] for n in SIZES} for arm in ('none', 'affine')}, alone={arm: trials[LETTERS, arm, ALONE] for arm in ARMS},
                 mirrored={arm: trials[MIRRORED, arm, ALONE] for arm in ('none', 'flip')}, cpu_seconds=round(done['cpu'])), code=code, seeds=list(SEEDS[:i + 1]), seconds=time.time() - start)
    path.unlink()


if __name__ == '__main__': main()
