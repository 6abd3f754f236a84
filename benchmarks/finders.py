"dlpractice and the peers' learning rate finders behind one face, on one model, one loader and one optimizer."
import importlib, logging, random, tempfile, warnings
from contextlib import contextmanager
from dataclasses import dataclass
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F
from torch.utils.data import BatchSampler, DataLoader, RandomSampler


class Net(nn.Module):
    "A CNN with BatchNorm that keeps a log, fails on demand, and holds one of each thing that a test must put back."
    def __init__(self, classes, channels=1, width=16, drop=0., odd=False):
        super().__init__()
        block = lambda a, b: nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
        self.body = nn.Sequential(block(channels, width), block(width, 2*width), block(2*width, 4*width))
        self.drop, self.head = nn.Dropout(drop), nn.Linear(4*width, classes)
        if odd:
            self.register_buffer('calls', torch.zeros(()), persistent=False)
            self.body[0].requires_grad_(False) # a frozen block, and its BatchNorm in eval mode as fine-tuning has it
            self.body[0].eval()
        self.odd, self.modes, self.fault = odd, [], None

    def forward(self, x):
        self.modes.append(self.head.training)
        if self.odd: self.calls += 1
        if self.fault and len(self.modes) == self.fault[0] and self.fault[1] is not None: raise self.fault[1]
        out = self.head(self.drop(self.body(x).mean((2, 3))))
        return out*float('nan') if self.fault and len(self.modes) == self.fault[0] else out


class Recorded:
    "Mixin of an optimizer: notes every group's rate at each step."
    rates = [] # one home for all instances, since a tool may make a new one of the class; cleared by `Case`
    def step(self, closure=None):
        Recorded.rates.append([float(g['lr']) for g in self.param_groups])
        return super().step(closure)

class RecordedSGD(Recorded, torch.optim.SGD): pass


class Rows(torch.utils.data.Dataset):
    "Rows of tensors fetched a batch at a time; `jitter` draws from Python's and NumPy's global states, as augmentations do."
    def __init__(self, x, y, jitter=False): self.x, self.y, self.jitter = x, y, jitter
    def __len__(self): return len(self.x)
    def __getitem__(self, idx):
        x, y = self.x[idx], self.y[idx]
        if self.jitter: x = (x.flip(-1) if random.random() < 0.5 else x) + 0.01*float(np.random.rand())
        return x, y


def loader(x, y, size=64, seed=0, jitter=False):
    "A shuffling DataLoader with its own generator that fetches whole batches, so that fetching hides nobody's overhead."
    g = torch.Generator().manual_seed(seed)
    rows = Rows(x, y, jitter)
    return DataLoader(rows, batch_size=None, sampler=BatchSampler(RandomSampler(rows, generator=g), size, True), generator=g)


_letters = {}
def letters(n=5000, size=32):
    "Lower-case Latin letters of the glyph world: float images, normalised over all, and labels."
    if (n, size) not in _letters:
        from dlpractice.data import glyphs
        d = glyphs(n, size=size, seed=0)
        x = d.images.float()
        if x.ndim == 3: x = x[:, None]
        _letters[n, size] = (x - x.mean())/x.std(), d.labels.long()
    return _letters[n, size]


@dataclass
class Case:
    "What a range test is given."
    model: nn.Module
    loader: DataLoader
    optimizer: torch.optim.Optimizer
    scheduler: object = None
    loss: object = F.cross_entropy
    def __post_init__(self): Recorded.rates.clear()


@dataclass
class Found:
    "What came back from a test."
    suggestion: float | None
    lrs: list
    losses: list
    verdict: str = ''
    interrupted: bool = False
    no_suggestion: str = '' # the reason that the tool gave


class Ours:
    name, package, module = 'dlpractice', 'dlpractice', 'dlpractice.lr_finder'
    def __init__(self, case, workdir): self.case = case
    def run(self, **rates):
        "The test as a user calls it: nothing to put back afterwards."
        from dlpractice.lr_finder import lr_range_test
        c = self.case
        self.result = lr_range_test(c.model, c.loss, c.loader, optimizer=c.optimizer, **rates)
    def found(self):
        r = self.result
        return Found(r.suggestion, list(map(float, r.lrs)), list(map(float, r.losses)), str(r.verdict), bool(r.interrupted))


class TorchLRFinder:
    name, package, module = 'torch-lr-finder', 'torch-lr-finder', 'torch_lr_finder'
    def __init__(self, case, workdir): self.case = case
    def run(self, start=1e-7, end=10., steps=100, **_):
        "Test, then `reset`, which its documentation asks for. Its own start is the optimizer's rate; 1e-7 is its README's."
        from torch_lr_finder import LRFinder
        c = self.case
        self.finder = LRFinder(c.model, c.optimizer, c.loss)
        self.finder.range_test(c.loader, start_lr=start, end_lr=end, num_iter=steps)
        self.finder.reset()
    @property
    def tidy(self):
        "What a user can call after an exception."
        return self.finder.reset if hasattr(self, 'finder') else None
    def found(self):
        h = self.finder.history
        from matplotlib.figure import Figure
        try: suggestion, why = float(self.finder.plot(ax=Figure().subplots())[1]), ''
        except Exception as e: suggestion, why = None, type(e).__name__
        return Found(suggestion, h['lr'], h['loss'], no_suggestion=why)


class Fastai:
    name, package, module = 'fastai', 'fastai', 'fastai.learner'
    def __init__(self, case, workdir):
        from fastai.learner import Learner
        from fastai.data.core import DataLoaders
        from fastai.optimizer import OptimWrapper
        import fastai.callback.schedule
        self.learn = Learner(DataLoaders(case.loader, case.loader), case.model, loss_func=case.loss, path=workdir,
                             opt_func=lambda params, **kw: OptimWrapper(opt=case.optimizer))
    def run(self, start=1e-7, end=10., steps=100, **_):
        with self.learn.no_bar():
            self.suggested = self.learn.lr_find(start_lr=start, end_lr=end, num_it=steps, show_plot=False)
    def found(self):
        rec = self.learn.recorder
        return Found(float(self.suggested[0]), list(map(float, rec.lrs)), [float(l) for l in rec.losses])


class Lightning:
    name, package, module = 'Lightning', 'lightning', 'lightning.pytorch'
    def __init__(self, case, workdir):
        import lightning.pytorch as pl
        class Wrapped(pl.LightningModule):
            def __init__(self):
                super().__init__()
                self.net, self.lr = case.model, 1e-3
            def training_step(self, batch, idx): return case.loss(self.net(batch[0]), batch[1])
            def configure_optimizers(self):
                return case.optimizer if case.scheduler is None else ([case.optimizer], [case.scheduler])
        self.trainer = pl.Trainer(accelerator='cpu', logger=False, enable_checkpointing=False, enable_progress_bar=False,
                                  enable_model_summary=False, default_root_dir=workdir, max_epochs=1000)
        self.module_, self.loader = Wrapped(), case.loader
    def run(self, start=1e-8, end=1., steps=100, **_):
        from lightning.pytorch.tuner import Tuner
        self.finder = Tuner(self.trainer).lr_find(self.module_, train_dataloaders=self.loader, min_lr=start, max_lr=end,
                                                  num_training=steps, update_attr=False)
    def found(self):
        r = self.finder.results
        s = self.finder.suggestion()
        return Found(s, r['lr'], r['loss'], no_suggestion='' if s else 'too few points')


FINDERS = (Ours, TorchLRFinder, Fastai, Lightning)


def installed():
    "The finders that import, and (name, reason) of those that do not."
    warnings.simplefilter('ignore')
    here, missing = [], []
    for finder in FINDERS:
        try:
            importlib.import_module(finder.module)
            here.append(finder)
        except ImportError as e: missing.append((finder.name, f'{type(e).__name__}: {e}'))
    quiet()
    return here, missing


def quiet():
    "No warnings and no log lines from the peers (after their import, which sets levels): what they do is measured."
    warnings.simplefilter('ignore')
    for name in ('lightning.pytorch', 'lightning.fabric', 'lightning', 'pytorch_lightning'):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def workdir():
    "A folder for what the peers write to disk."
    with tempfile.TemporaryDirectory() as d: yield d


def bare_test(case, start, end, steps):
    "The bare loop that a range test is measured against: it sets the rate, takes the step and records the loss."
    lrs, losses = [start*(end/start)**(i/(steps - 1)) for i in range(steps)], []
    model, optimizer, batches = case.model.train(), case.optimizer, iter(case.loader)
    for lr in lrs:
        try: x, y = next(batches)
        except StopIteration:
            batches = iter(case.loader)
            x, y = next(batches)
        for g in optimizer.param_groups: g['lr'] = lr
        optimizer.zero_grad()
        loss = case.loss(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return lrs, losses
