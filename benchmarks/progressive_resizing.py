"""Progressive resizing beside Composer's, with the same model, data, sizes, rates and loop: accuracy and time.

Small letters in large pictures, as in the lesson's stored run. Two comparisons: one bare loop that calls either function, and either library's own
trainer with its own class (`Learner` and `ProgressiveResize`; `Trainer` and `ProgressiveResizing`). Arms take turns; seeds pair them.
Composer pins an older torch than `requirements.txt`, so this one runs in a venv of its own and is no part of `make bench`:
`pip install mosaicml==0.32.1 -e .`, then `python benchmarks/progressive_resizing.py`. One thread."""
import os, statistics, sys, time
from datetime import date
from importlib.metadata import version
from pathlib import Path

os.environ.update(OMP_NUM_THREADS='1', MPLBACKEND='agg')
import numpy as np
import torch
from torch.nn import functional as F
from common import figure, figures_table, machine, number, one_thread, table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]/'nbs/lessons/runs'))
RATE, EPOCHS, SCALE, DELAY, FINE, STEP, BATCH = 0.02, 10, 0.5, 0.3, 0.4, 4, 40


def width(progress, side=40):
    "Composer's course of sizes: the least, then growing in a straight line from DELAY on, full for the last part FINE."
    grown = min(max(0., (progress - DELAY)/(1 - FINE - DELAY)), 1.)
    return round(side*(SCALE + (1 - SCALE)*grown)/STEP)*STEP


def loops(data, score, seed, resize):
    "Train in a bare loop; resize(x, y, size) -> x. (accuracy, seconds)."
    from dlpractice.data import Batches
    from dlpractice.snapshots import seeded
    from resizing import net
    with seeded(seed):
        model, batches = net(), Batches(*data, size=BATCH)
        opt, steps, k, began = torch.optim.AdamW(model.parameters(), lr=RATE), EPOCHS*len(batches), 0, time.process_time()
        for _ in range(EPOCHS):
            for x, y in batches:
                opt.param_groups[0]['lr'] = RATE*(1 - k/steps)
                loss = F.cross_entropy(model(resize(x, y, width(k/steps))), y)
                opt.zero_grad(); loss.backward(); opt.step()
                k += 1
    return accuracy(model, score), time.process_time() - began


def accuracy(model, score):
    model.eval()
    with torch.no_grad(): return torch.cat([model(x).argmax(1) == y for x, y in zip(score[0].split(500), score[1].split(500))]).float().mean().item()


def learner(data, score, seed):
    "The same training by `Learner` and `ProgressiveResize`."
    from dlpractice.data import Batches
    from dlpractice.resizing import ProgressiveResize
    from dlpractice.schedules import Schedule, linear
    from dlpractice.snapshots import seeded
    from dlpractice.training import Learner
    from resizing import net
    steps = EPOCHS*len(Batches(*data, size=BATCH))
    plan = [(k/steps, width(k/steps)) for k in range(steps) if k == 0 or width(k/steps) != width((k - 1)/steps)]
    with seeded(seed):
        model = net()
        fit = Learner(model, (Batches(*data, size=BATCH), None), F.cross_entropy, torch.optim.AdamW)
        began = time.process_time()
        fit.fit(EPOCHS, callbacks=[Schedule('lr', linear(RATE, 0.)), ProgressiveResize(plan)])
    return accuracy(model, score), time.process_time() - began


def trainer(data, score, seed):
    "The same training by Composer's `Trainer` and `ProgressiveResizing`."
    from composer import Trainer
    from composer.algorithms import ProgressiveResizing
    from composer.core import DataSpec
    from composer.models import ComposerModel
    from dlpractice.data import Batches
    from dlpractice.snapshots import seeded
    from resizing import net

    class Model(ComposerModel):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner
        def forward(self, batch): return self.inner(batch[0])
        def loss(self, outputs, batch): return F.cross_entropy(outputs, batch[1])

    with seeded(seed):
        inner = net()
        batches = Batches(*data, size=BATCH)
        steps = EPOCHS*len(batches)
        opt = torch.optim.AdamW(inner.parameters(), lr=RATE)
        falling = torch.optim.lr_scheduler.LambdaLR(opt, lambda k: 1 - k/steps)
        began = time.process_time()
        run = Trainer(model=Model(inner), train_dataloader=DataSpec(batches, get_num_samples_in_batch=lambda b: len(b[0])), max_duration=f'{EPOCHS}ep', optimizers=opt, device_train_microbatch_size=BATCH,
                      schedulers=falling, step_schedulers_every_batch=True, device='cpu', progress_bar=False, log_to_console=False,
                      algorithms=[ProgressiveResizing(mode='resize', initial_scale=SCALE, finetune_fraction=FINE, delay_fraction=DELAY, size_increment=STEP)])
        run.fit()
        seconds = time.process_time() - began
        run.close()
    return accuracy(inner, score), seconds


def main(quick=False):
    "Figures: times Composer's seconds, and points of accuracy above it, with the quartiles over seeds."
    from composer.algorithms.progressive_resizing import resize_batch as theirs
    from dlpractice.resizing import resize_batch as ours
    from resizing import letters
    one_thread()
    data, score = letters(1200, 1001), letters(2000, 1002)
    arms = {'one loop, dlpractice': lambda s: loops(data, score, s, lambda x, y, size: ours(x, size)),
            'one loop, Composer': lambda s: loops(data, score, s, lambda x, y, size: theirs(x, y, size/x.shape[-1])[0]),
            'Learner and ProgressiveResize': lambda s: learner(data, score, s), "Composer's Trainer and ProgressiveResizing": lambda s: trainer(data, score, s)}
    found = {name: [] for name in arms}
    for seed in range(-1, 3 if quick else 9): # the first round warms up
        for name in list(arms)[::1 if seed % 2 else -1]:
            got = arms[name](seed + 1)
            if seed >= 0: found[name].append(got)
        print(seed, {name: tuple(round(o, 3) for o in f[-1]) for name, f in found.items() if f}, file=sys.stderr, flush=True)
    names, figures = list(arms), []
    for a, b, what in ((names[0], names[1], 'one loop'), (names[2], names[3], "each library's trainer")):
        right, seconds = (np.array([[f[k] for f in found[o]] for o in (a, b)]) for k in (0, 1))
        low, mid, high = statistics.quantiles(seconds[0]/seconds[1], n=4, method='inclusive')
        figures.append(figure(f"progressive resizing, {what}: time over Composer's", mid, 1., 'x', note=f'{low:.2f} to {high:.2f} (quartiles of {len(right[0])})'))
        gain = 100*(right[0] - right[1])
        figures.append(figure(f'progressive resizing, {what}: points of accuracy above Composer', float(gain.mean()), 0., ' points', at_least=True, note=f'standard deviation over seeds {gain.std(ddof=1):.1f}'))
    rows = [[name, number(float(np.mean([r for r, _ in f]))*100) + ' %', number(statistics.median(s for _, s in f)) + ' s'] for name, f in found.items()]
    text = f"{table(['way', 'accuracy, mean', 'time, median'], rows)}\n\n{figures_table(figures)}"
    print(text)
    if not quick:
        about = f"{date.today().isoformat()}, {machine()['CPU']}, one thread; " + ', '.join(f'{o} {version(o)}' for o in ('mosaicml', 'torch', 'dlpractice'))
        Path(__file__).with_suffix('.md').write_text(f'# Progressive resizing beside Composer\n\n<!-- Written by benchmarks/progressive_resizing.py; do not edit. -->\n\n{about}.\n\n{text}\n', encoding='utf-8')
    return figures


if __name__ == '__main__': main('--quick' in sys.argv)
