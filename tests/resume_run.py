"""A training run for `test_training.py`, in a process of its own: `resume_run.py KIND CHECKPOINT RESULT [kill STEP]`.

Trains to the end and writes weights and history to RESULT; or kills itself, without any tidying up, at a step."""
import os, signal, sys

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dlpractice.data import Batches, Loaders
from dlpractice.snapshots import seeded
from dlpractice.training import Checkpoint, Learner


class Killer:
    def __init__(self, step): self.step = step
    def after_step(self, learner):
        if learner.step == self.step: os.kill(os.getpid(), signal.SIGKILL if hasattr(signal, 'SIGKILL') else signal.SIGTERM)


class Noise:
    "A callback with a state and with random draws of its own."
    def __init__(self): self.sum = 0.
    def before_epoch(self, learner): self.sum += torch.rand(()).item()
    def after_loss(self, learner): learner.batch_loss = learner.batch_loss*(1 + 0.01*torch.rand(()).item() + 0.001*self.sum)
    def state_dict(self): return dict(sum=self.sum)
    def load_state_dict(self, state): self.sum = state['sum']


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.drop, self.out = nn.Conv2d(1, 8, 3, 2), nn.BatchNorm2d(8), nn.Dropout(0.3), nn.Linear(8, 4)
        self.register_buffer('seen', torch.zeros(()), persistent=False)
    def forward(self, x):
        if self.training: self.seen += len(x)
        return self.out(self.drop(F.relu(self.norm(self.conv(x))).mean((2, 3))))*(1 + 1e-5*self.seen)


def loaders(kind):
    x, y = torch.randn(90, 1, 9, 9), torch.randint(4, (90,))
    valid = Batches(x[:20], y[:20], size=8, shuffle=False)
    ds = TensorDataset(x, y)
    g = torch.Generator().manual_seed(8)
    if kind == 'loader': return Loaders(DataLoader(ds, 8, shuffle=True), DataLoader(ds, 16))
    if kind == 'workers': return Loaders(DataLoader(ds, 8, shuffle=True, num_workers=1), valid)
    if kind == 'generator': return Loaders(DataLoader(ds, 8, shuffle=True, generator=g), valid)
    return Loaders(Batches(x, y, size=8, generator=g if kind == 'batches generator' else None), valid)


def learner(kind, seed=0):
    "The same data always; weights from `seed`."
    with seeded(1): data = loaders(kind)
    with seeded(seed): model = Net()
    optimizer = dict(loader=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)).get(kind, lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True))
    return Learner(model, data, F.cross_entropy, optimizer, accumulate=3 if kind == 'accumulate' else 1,
        amp='bf16' if kind == 'bf16' else None, clip=0.5 if kind == 'bf16' else None)


def plan(progress): return 1 - 0.9*progress


if __name__ == '__main__':
    kind, checkpoint, result, *kill = sys.argv[1:]
    torch.set_num_threads(1)
    resumed = os.path.exists(checkpoint)
    l = learner(kind, seed=77 if resumed else 0) # other weights and another random state: all has to come from the file
    torch.manual_seed(5 if not resumed else 6)
    l.fit(3, plan, [Noise()] + [Killer(int(k)) for k in kill[1:]], checkpoint=Checkpoint(checkpoint, every=2), resume=True, progress=False)
    torch.save(dict(model=l.model.state_dict(), seen=l.model.seen, losses=l.history.losses, lrs=l.history.lrs, random=torch.get_rng_state(),
        rows=[{k: v for k, v in r.items() if k != 'seconds'} for r in l.history]), result)
