"""Seven schedules of the learning rate, each at its own best rate, on three small tasks.

SGD with momentum 0.9, settled before the first run: it is what the rules about schedules were said of. Tasks: a CNN with BatchNorm on ten
easy letters (1,000 pictures of 16×16, batches of 32, 6 epochs), an MLP with 64 hidden units on 300 of scikit-learn's digits (batches of 32,
24 epochs), an MLP with 64 hidden units on all 26 letters (1,500 pictures, batches of 64, 9 epochs). Within a seed all arms share pictures,
initial weights and the order of the batches. Each arm is trained at five rates, neighbours a factor of 2.5 apart, around the suggestion of
one range test per seed; the best accuracy on validation pictures at the end of training chooses, and is not what is reported.

Arms, as what multiplies the largest rate: `constant`; `step` (to a tenth at half of the run, again at three quarters); `exponential` (to a
hundredth); `triangular` (three triangles from a tenth); `one_cycle` (up from 1/25 for three tenths, then down to next to nothing, the
momentum unchanged); `restarts` (three equal cosines); `restarts_mult2` (three cosines, each twice as long as the one before);
`one_cycle_short` (one_cycle over two thirds of the epochs).

Stored in `results`:
- `settings`: optimizer, momentum, rates (5), factor (between neighbours), seeds.
- `tasks`: task -> dict(epochs, steps, batch, pictures, net, suggestion (one per seed), arms).
- a task's `arms`: arm -> dict(rate: the geometric mean of the chosen rates; rates: per seed; at_edge: per seed, whether the chosen rate is the
  first or last of the five; test_error: per seed; valid: per seed a list, accuracy after each epoch; train_loss: per seed a list, mean loss of
  each epoch's batches; reaches: per seed, the share of the run's iterations after which the validation accuracy is at least the best that
  `exponential` ever has in this seed, looked at after each epoch, None where it never is; for `one_cycle_short` the share is of the full run).
- a task's `cut`: dict(exponential, constant): how much smaller one_cycle's mean test error is, as a share of theirs; `cut_per_seed`: the same
  per seed; `short_cut`: one_cycle_short's, against exponential.
- `drawn`: arm -> what multiplies its rate, at 49 points of progress from 0 to 1.
- `cpu_seconds`: processor time of the training."""
import time

import numpy as np

import torch
from torch.nn import functional as F

from dlpractice.claims_schedules import ARMS, CODE, DRAWN, SGD, schedule_task
from dlpractice.lr_finder import lr_range_test
from dlpractice.rate_sweeps import sweep_points
from dlpractice.runs import code_hashes, save_run
from dlpractice.small_tasks import loader
from dlpractice.snapshots import seeded
from dlpractice.stacked_nets import train_stack

SEEDS = 5
NAMES = {'constant': 'constant', 'step': 'step', 'exponential': 'exponential', 'triangular': 'triangular', 'one_cycle': '1cycle',
         'restarts': 'restarts, equal', 'restarts_mult2': 'restarts, doubling'}
TASKS = {'digits, MLP': 'digits', '26 letters, MLP': 'alphabet', 'letters, CNN': 'glyphs'}


def short(v, digits=4): return float(f'{v:.{digits}g}')
def shorts(values): return [short(v) for v in values]


def chosen(world, seed, rates, arms, share=1.):
    "arm -> the run at the rate that validation prefers, looked at after each epoch."
    task, net, epochs, batch, _, transform = schedule_task(world, seed)
    settings = [dict(lr=r, schedule=ARMS[NAMES[a]], momentum=0.9) for a in arms for r in rates]
    runs, out = iter(train_stack(net, task, settings, round(share*epochs), seed, batch, transform=transform)), {}
    for a in arms:
        own = [next(runs) for _ in rates]
        k = int(np.nanargmax([r['valid'][-1] for r in own]))
        out[a] = own[k] | dict(rate=rates[k], at_edge=k in (0, len(rates) - 1))
    return out


def trial(world, seed):
    "The suggestion, and all arms of a seed."
    task, net, _, batch, _, transform = schedule_task(world, seed)
    with seeded(seed): suggestion = lr_range_test(net(), F.cross_entropy, loader(task, seed, batch, transform), SGD, most=3, progress=False).suggest()
    rates = sweep_points(suggestion, factor=2.5).tolist()
    runs = chosen(world, seed, rates, NAMES)
    return suggestion, runs | dict(one_cycle_short=chosen(world, seed, rates, ['one_cycle'], 2/3)['one_cycle'])


def reach(run, target, steps):
    at = next((k for k, a in zip(run['steps'], run['valid']) if a >= target), None)
    return None if at is None else short(at/steps)


def task_results(world):
    trials = [trial(world, seed) for seed in range(SEEDS)]
    task, net, epochs, batch, *_ = schedule_task(world, 0)
    steps, arms = trials[0][1]['constant']['steps'][-1], {}
    for a in trials[0][1]:
        runs = [r[a] for _, r in trials]
        arms[a] = dict(rate=short(np.exp(np.mean([np.log(r['rate']) for r in runs])), 3), rates=[short(r['rate'], 3) for r in runs], at_edge=[r['at_edge'] for r in runs],
                       test_error=[short(1 - r['test']) for r in runs], valid=[shorts(r['valid']) for r in runs], train_loss=[shorts(r['train_loss']) for r in runs],
                       reaches=[reach(r[a], max(r['exponential']['valid']), steps) for _, r in trials])
    error = {a: np.array(v['test_error']) for a, v in arms.items()}
    cut = lambda a, b: short(1 - error[a].mean()/error[b].mean())
    return dict(epochs=epochs, steps=steps, batch=batch, pictures=len(task.train[1]), net=net.func.__name__ + str(net.args), suggestion=[short(s, 3) for s, _ in trials], arms=arms,
                cut={b: cut('one_cycle', b) for b in ('exponential', 'constant')}, cut_per_seed={b: shorts(1 - error['one_cycle']/error[b]) for b in ('exponential', 'constant')},
                short_cut=cut('one_cycle_short', 'exponential'))


if __name__ == '__main__':
    torch.set_num_threads(1)
    code, start, cpu, tasks = code_hashes('schedules.py', 'dlpractice.claims_schedules:arms', 'dlpractice.claims_schedules:schedule_task', *CODE), time.time(), time.process_time(), {}
    for name, world in TASKS.items():
        tasks[name] = task_results(world)
        print(name, tasks[name]['cut'], {a: round(float(np.mean(v['test_error'])), 4) for a, v in tasks[name]['arms'].items()}, flush=True)
    save_run('schedules.json', dict(settings=dict(optimizer='SGD', momentum=0.9, rates=5, factor=2.5), tasks=tasks, drawn={a: DRAWN[b] for a, b in NAMES.items()}, cpu_seconds=round(time.process_time() - cpu)),
             code, list(range(SEEDS)), time.time() - start)
