"""What a training framework costs per step: `Learner.fit` against a bare loop, and against peers where they are installed.

A 64-32-10 perceptron, batches of 32, SGD, one thread, a schedule and a history of losses and rates in every one. The ways
take turns. Two figures, each the median over the repeats of (way - bare loop): of a typical step (the median of the times
between two batches of an epoch, which other programs on the machine hardly touch), and of the whole run divided by its steps
(epoch ends, beginning and end included; processor time, since with one thread that never waits it is what an idle machine takes).
Run: `python benchmarks/training_overhead.py [repeats] [steps]`."""
import gc, logging, platform, sys, warnings
from importlib.metadata import version
from statistics import median
from time import perf_counter, process_time

import torch
import torch.nn.functional as F
from torch import nn

SIZE, BATCHES = 32, 100 # examples per batch; batches per epoch


def half(progress): return 1 - progress/2

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

class Stamped(list):
    "Batches that lie ready in a list, so that loading costs next to nothing; notes when each is drawn."
    def __iter__(self):
        self.stamps = getattr(self, 'stamps', [])
        for batch in super().__iter__():
            self.stamps.append(perf_counter())
            yield batch

def batches():
    g = torch.Generator().manual_seed(1)
    return Stamped((torch.randn(SIZE, 64, generator=g), torch.randint(10, (SIZE,), generator=g)) for _ in range(BATCHES))


def bare(data, epochs):
    "The loop that everyone writes: no history, no schedule, no check."
    model = net()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()
    def run():
        for _ in range(epochs):
            for x, y in data:
                opt.zero_grad()
                F.cross_entropy(model(x), y).backward()
                opt.step()
    return run

def bare_with_history(data, epochs):
    "The same, with a schedule, a list of losses and a check of each."
    import math
    model = net()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()
    def run():
        losses, lrs, step, total = [], [], 0, epochs*len(data)
        for _ in range(epochs):
            for x, y in data:
                for g in opt.param_groups: g['lr'] = 0.1*half(step/(total - 1))
                opt.zero_grad()
                loss = F.cross_entropy(model(x), y)
                losses.append(loss.item())
                if not math.isfinite(losses[-1]): raise RuntimeError(step)
                lrs.append(opt.param_groups[0]['lr'])
                loss.backward()
                opt.step()
                step += 1
    return run

def dlpractice(data, epochs):
    from dlpractice.training import Learner
    learner = Learner(net(), (data, None), F.cross_entropy, lambda p: torch.optim.SGD(p, lr=0.1))
    return lambda: learner.fit(epochs, schedule=half)

def accelerate(data, epochs):
    "Accelerate's own loop, with PyTorch's scheduler and a list of losses."
    from accelerate import Accelerator
    accelerator = Accelerator(cpu=True)
    model = net()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    total = epochs*len(data)
    model, opt, sched = accelerator.prepare(model, opt, torch.optim.lr_scheduler.LambdaLR(opt, lambda i: half(i/total)))
    def run():
        losses = []
        for _ in range(epochs):
            for x, y in data:
                opt.zero_grad()
                with accelerator.autocast(): loss = F.cross_entropy(model(x), y)
                losses.append(loss.item())
                accelerator.backward(loss)
                opt.step()
                sched.step()
    return run

def lightning(data, epochs):
    import lightning as L
    logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)
    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.losses = net(), []
        def training_step(self, batch, i):
            loss = F.cross_entropy(self.net(batch[0]), batch[1])
            self.losses.append(loss.item())
            return loss
        def configure_optimizers(self):
            opt = torch.optim.SGD(self.parameters(), lr=0.1)
            sched = torch.optim.lr_scheduler.LambdaLR(opt, lambda i: half(i/(epochs*len(data))))
            return dict(optimizer=opt, lr_scheduler=dict(scheduler=sched, interval='step'))
    class Loader: # a bare list would count as several loaders
        def __iter__(self): return iter(data)
        def __len__(self): return len(data)
    def run():
        L.Trainer(max_epochs=epochs, accelerator='cpu', logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False).fit(Module(), Loader())
    return run

def fastai(data, epochs):
    from fastai.basics import DataLoaders, Learner, OptimWrapper
    from fastai.callback.schedule import ParamScheduler, SchedLin
    from functools import partial
    class Data(list): # what fastai asks of a loader
        device, drop_last, bs, n, dataset = torch.device('cpu'), False, SIZE, SIZE*BATCHES, range(SIZE*BATCHES)
        def to(self, device): return self
        def __iter__(self): return iter(data) if len(self) else iter(())
    learn = Learner(DataLoaders(Data(data), Data()), net(), loss_func=F.cross_entropy, opt_func=partial(OptimWrapper, opt=torch.optim.SGD), lr=0.1)
    def run():
        with learn.no_bar(), learn.no_logging(): learn.fit(epochs, cbs=ParamScheduler({'lr': SchedLin(0.1, 0.05)}))
    return run

WAYS = [bare, bare_with_history, dlpractice, accelerate, lightning, fastai]


def timed(run, data):
    "Microseconds of a typical step, and of the whole run per step."
    gc.collect()
    data.stamps = []
    start = process_time()
    run()
    whole, s = process_time() - start, data.stamps
    return 1e6*median(b - a for i, (a, b) in enumerate(zip(s, s[1:]), 1) if i % BATCHES), 1e6*whole/len(s)

def machine():
    "The processor's name, where the system tells."
    try: return next(l.split(':')[1].strip() for l in open('/proc/cpuinfo') if l.startswith('model name'))
    except (OSError, StopIteration): return platform.processor() or platform.machine()

def package(way): return {'bare': 'torch', 'bare_with_history': 'torch'}.get(way.__name__, way.__name__)

def main(repeats=7, steps=2000):
    "Figures by way: microseconds per step, and what is above the bare loop. Ways whose package is missing are left out."
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    data, epochs, ways = batches(), steps//BATCHES, []
    for way in WAYS:
        try: way(data, 1)() # imports, first use
        except ImportError: print(f'{way.__name__}: not installed')
        else: ways.append(way)
    times = {w.__name__: [] for w in ways}
    for r in range(repeats):
        for w in ways[::1 if r % 2 else -1]: times[w.__name__].append(timed(w(data, epochs), data))
    figures = {}
    for w in ways:
        step, whole = zip(*times[w.__name__])
        bare_step, bare_whole = zip(*times['bare'])
        extra = sorted(a - b for a, b in zip(step, bare_step))
        figures[w.__name__] = dict(version=version(package(w)), us_per_step=median(step), extra_us=median(extra), extra_low=extra[0], extra_high=extra[-1],
            extra_whole_us=median(a - b for a, b in zip(whole, bare_whole)))
    print(f'{machine()}, Python {platform.python_version()}, torch {torch.__version__}, 1 thread, {repeats} repeats of {epochs*BATCHES} steps\n')
    print('| way | version | µs per step | above the bare loop, µs | lowest to highest | whole run, µs above per step |\n|---|---|---|---|---|---|')
    for n, f in figures.items():
        print(f"| {n.replace('_', ' ')} | {f['version']} | {f['us_per_step']:.1f} | {f['extra_us']:.1f} | {f['extra_low']:.1f} to {f['extra_high']:.1f} | {f['extra_whole_us']:.1f} |")
    return figures


if __name__ == '__main__': main(*map(int, sys.argv[1:3]))
