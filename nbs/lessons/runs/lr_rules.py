"""Judges the rules that read a learning rate off a range test, on ten tasks.

Per task: a 12-point sweep of constant-then-decayed training runs (3 seeds), range tests over 6 shuffles of one net and
over 6 nets, and training runs at each rule's suggestion. Paired: within a seed all arms share data, initialisation and batch order."""
import json, os, time
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from dlpractice.data import Batches, glyphs
from dlpractice.lr_finder import RULES, lr_range_test
from dlpractice.runs import code_hashes, save_run
from dlpractice.snapshots import seeded

SWEEP = [float(f'{lr:.4g}') for lr in np.geomspace(1e-4, 10, 12)]
SEEDS = (0, 1, 2)
SHUFFLES = 6


# ---- data: (train inputs, train labels), (valid …), (test …), made once per process

def normalised(world, mean=None, std=None):
    "Float images with the mean and spread of `world` (or those given)."
    x = torch.as_tensor(world.images).float()/255
    if mean is None: mean, std = x.mean(), x.std()
    return (x - mean)/std, torch.as_tensor(world.labels), mean, std


@lru_cache(None)
def letters(script='latin_lower', train=4000, **kw):
    "Three independent draws of the glyph world."
    x, y, mean, std = normalised(glyphs(train, script=script, seed=1, **kw))
    return (x, y), *(normalised(glyphs(n, script=script, seed=s, **kw), mean, std)[:2] for n, s in ((1000, 2), (3000, 3)))


@lru_cache(None)
def few_digits(train=300):
    "scikit-learn's digits, few of them for training."
    x, y = map(torch.as_tensor, load_digits(return_X_y=True))
    x = x.float()
    x = (x - x.mean())/x.std()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    cut = order.split([train, 500, len(x) - train - 500])
    return tuple((x[i], y[i]) for i in cut)


@lru_cache(None)
def likes(people=200, films=150, rank=3, train=12_000):
    "Who likes what: a low-rank truth seen through a coin toss."
    g = torch.Generator().manual_seed(0)
    u, v = (torch.randn(n, rank, generator=g) for n in (people, films))
    ids = torch.randperm(people*films, generator=g)[:train + 6000]
    pairs = torch.stack([ids//films, ids % films], 1)
    logit = 3*(u[pairs[:, 0]]*v[pairs[:, 1]]).sum(1)
    y = (torch.rand(len(ids), generator=g) < torch.sigmoid(logit)).long()
    return tuple((pairs[i], y[i]) for i in torch.arange(len(ids)).split([train, 2000, 4000]))


# ---- nets

def mlp(n_in, hidden, n_out):
    "Linear layers with ReLU between them."
    sizes = [n_in, *hidden, n_out]
    layers = [nn.Flatten()]
    for a, b in zip(sizes, sizes[1:]): layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cnn(norm=True, head='pool', n_out=26, widths=(16, 32, 64)):
    "Stride-2 convolutions, with or without BatchNorm, and a pooled or a flattened head."
    layers, c = [], 1
    for w in widths:
        layers += [nn.Conv2d(c, w, 3, stride=2, padding=1, bias=not norm)] + [nn.BatchNorm2d(w)]*norm + [nn.ReLU()]
        c = w
    if head == 'pool': layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, n_out)]
    else: layers += [nn.Flatten(), nn.Linear(c*16, n_out)]
    return nn.Sequential(*layers)


class Block(nn.Module):
    "Two 3×3 convolutions and a shortcut."
    def __init__(self, c_in, c_out):
        super().__init__()
        self.main = nn.Sequential(nn.Conv2d(c_in, c_out, 3, 2, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(),
                                  nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False), nn.BatchNorm2d(c_out))
        self.short = nn.Conv2d(c_in, c_out, 1, 2, bias=False)

    def forward(self, x): return F.relu(self.main(x) + self.short(x))


def resnet(n_out=26):
    "A small ResNet: a strided stem and three blocks."
    return nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), Block(16, 32), Block(32, 48), Block(48, 64),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, n_out))


class DotProduct(nn.Module):
    "Embeddings of people and films; the product of the two, and biases, as two logits."
    def __init__(self, people=200, films=150, rank=8):
        super().__init__()
        self.u, self.v = nn.Embedding(people, rank), nn.Embedding(films, rank)
        self.bias = nn.Embedding(people, 1)
        for e in (self.u, self.v): nn.init.normal_(e.weight, std=0.3)

    def forward(self, pairs):
        s = (self.u(pairs[:, 0])*self.v(pairs[:, 1])).sum(1) + self.bias(pairs[:, 0])[:, 0]
        return torch.stack([torch.zeros_like(s), s], 1)


@lru_cache(None)
def pretrained_weights():
    "The pooled CNN, trained on Latin letters."
    with seeded(100): model = cnn()
    train(model, adamw, 0.03, letters()[0], epochs=10, seed=100)
    return model.state_dict()


def fine_tuned():
    "The pretrained CNN with a fresh head for Greek."
    model = cnn(n_out=24)
    model.load_state_dict({k: v for k, v in pretrained_weights().items() if not k.startswith('11.')}, strict=False)
    return model


def sgd(params): return torch.optim.SGD(params, lr=1., momentum=0.9)
def adamw(params): return torch.optim.AdamW(params, lr=1.)


TEN = 'abdeghknrs'   # ten letters: an easier world for the slower nets

# name: (data, net, optimizer, epochs, batch size)
TASKS = {
    'MLP, SGD':                     (few_digits, lambda: mlp(64, (64, 64), 10), sgd, 30, 32),
    'MLP, AdamW':                   (lambda: letters(level='easy'), lambda: mlp(1024, (256,), 26), adamw, 10, 64),
    'CNN flattened, AdamW':         (lambda: letters(TEN), lambda: cnn(norm=False, head='flat', n_out=10), adamw, 12, 64),
    'CNN BatchNorm pooled, SGD':    (lambda: letters(TEN), lambda: cnn(n_out=10), sgd, 12, 64),
    'CNN BatchNorm pooled, AdamW':  (lambda: letters(TEN), lambda: cnn(n_out=10), adamw, 12, 64),
    'CNN BatchNorm flattened, SGD': (letters, lambda: cnn(head='flat'), sgd, 12, 64),
    'ResNet, SGD':                  (letters, resnet, sgd, 5, 64),
    'ResNet, AdamW':                (letters, resnet, adamw, 5, 64),
    'fine-tuned CNN, AdamW':        (lambda: letters('greek_lower', 1500, polarity='dark'), fine_tuned, adamw, 16, 64),
    'embeddings, AdamW':            (likes, DotProduct, adamw, 10, 256),
}


# ---- one training run, one range test

def train(model, make_opt, lr, data, epochs, seed, batch=64):
    "Train with the rate falling in a straight line from `lr` to zero; False where the loss stops being finite."
    loader = Batches(*data, size=batch, generator=torch.Generator().manual_seed(seed))
    opt = make_opt(model.parameters())
    total, step = epochs*len(loader), 0
    model.train()
    for _ in range(epochs):
        for x, y in loader:
            for g in opt.param_groups: g['lr'] = lr*(1 - step/total)
            opt.zero_grad()
            loss = F.cross_entropy(model(x), y)
            if not torch.isfinite(loss): return False
            loss.backward()
            opt.step()
            step += 1
    return True


@torch.no_grad()
def share_right(model, data):
    "Accuracy on `data`."
    model.eval()
    return float(torch.cat([(model(x).argmax(1) == y).float() for x, y in Batches(*data, size=500, shuffle=False)]).mean())


def trial(name, lr, seed):
    "[validation accuracy, test accuracy] of one run; zeros where it diverged."
    data, net, opt, epochs, batch = TASKS[name]
    tr, va, te = data()
    with seeded(seed): model = net()
    if not train(model, opt, float(lr), tr, epochs, seed, batch): return [0., 0.]
    return [share_right(model, va), share_right(model, te)]


def range_test(name, seed, shuffle, **kw):
    "A range test of the net of `seed` with the batches of `shuffle`."
    data, net, opt, _, batch = TASKS[name]
    with seeded(seed): model = net()
    loader = Batches(*data()[0], size=batch, generator=torch.Generator().manual_seed(1000 + shuffle))
    return lr_range_test(model, F.cross_entropy, loader, opt(model.parameters()), progress=False, **kw)


def tested(name, seed, shuffle):
    "What each rule suggests after a test with the defaults, and after a single test; how many tests it took, and the verdict."
    r, one = range_test(name, seed, shuffle), range_test(name, seed, shuffle, repeats=1, most=1)
    return dict(rules={k: r.suggest(k) for k in RULES}, single={k: one.suggest(k) for k in RULES},
                tests=len(r.curves), verdict=r.verdict, interval=r.interval)


# ---- all of it, by several workers, going on where it was interrupted

def work(job):
    "Run one job: a function's name and its arguments."
    torch.set_num_threads(1)
    return job, globals()[job[0]](*job[1:])


def run_all(jobs, done, path):
    "Run what `done` lacks; `done` is kept on disk after every job."
    jobs = [j for j in jobs if json.dumps(j) not in done]
    with get_context('spawn').Pool(os.cpu_count()) as pool:
        for k, (job, value) in enumerate(pool.imap_unordered(work, jobs), 1):
            done[json.dumps(job)] = value
            path.write_text(json.dumps(done))
            if k % 20 == 0 or k == len(jobs): print(f'{k} of {len(jobs)}', flush=True)


def main():
    start, path = time.time(), Path('lr_rules.part')
    code = code_hashes('lr_rules.py', *(f'dlpractice.lr_finder:{n}' for n in ('lr_range_test', 'RangeTest', 'judge', 'dip', 'pool', 'smooth', 'landmarks')), 'dlpractice.data:glyphs')
    done = json.loads(path.read_text()) if path.exists() else {}
    get = lambda *job: done[json.dumps(job)]
    run_all([('trial', t, lr, s) for t in TASKS for lr in SWEEP for s in SEEDS], done, path)
    run_all([('tested', t, 0, k) for t in TASKS for k in range(SHUFFLES)] + [('tested', t, s, 100 + s) for t in TASKS for s in range(1, SHUFFLES)], done, path)
    seen = {t: [get('tested', t, s, 100*bool(s) + s) for s in SEEDS] for t in TASKS}
    run_all([('trial', t, seen[t][s]['rules'][r], s) for t in TASKS for r in RULES for s in SEEDS], done, path)
    results = {t: dict(
        sweep=[[get('trial', t, lr, s) for s in SEEDS] for lr in SWEEP],
        shuffles=[get('tested', t, 0, k) for k in range(SHUFFLES)],
        nets=[get('tested', t, s, 100*bool(s) + s) for s in range(SHUFFLES)],
        at={r: [get('trial', t, seen[t][s]['rules'][r], s) for s in SEEDS] for r in RULES}) for t in TASKS}
    save_run('lr_rules.json', dict(rates=SWEEP, tasks=results), code=code, seeds=list(SEEDS), seconds=time.time() - start)
    path.unlink()


if __name__ == '__main__': main()
