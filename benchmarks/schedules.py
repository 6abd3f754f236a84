"""What a schedule costs per step and scheduled value: `Schedule` in a bare loop and as a callback of the `Learner`, against PyTorch's schedulers.

Nothing is trained: only the schedulers step, over a run of so many steps, in turn. As a callback: the event that a step raises,
called as the `Learner` calls them. `OneCycleLR` sets a rate and a momentum at each step; it counts as two values.
Run: `python benchmarks/schedules.py [repeats] [steps]`."""
import sys, warnings
from types import SimpleNamespace

import torch
from common import figure, figures_table, median, paired
from torch import nn
from torch.optim import SGD, AdamW, lr_scheduler


def ways(steps):
    "name -> (scheduled values, function that prepares and returns what to time)."
    from dlpractice.schedules import Schedule, linear, momentum_cycle, one_cycle
    def params(groups): return [dict(params=[torch.zeros(2, requires_grad=True)]) for _ in range(groups)]

    def loop(make, optimizer=SGD, groups=1, **places):
        def prepare():
            opt = optimizer(params(groups), lr=0.1, **(dict(momentum=0.9) if optimizer is SGD else {}))
            schedules = [s.attach(steps, optimizer=opt, **places) for s in make()]
            def run():
                for _ in range(steps):
                    for s in schedules: s.step()
                for s in schedules: s.detach()
            return run
        return prepare

    def callback(make):
        def prepare():
            learner = SimpleNamespace(step=0, total_steps=steps, optimizer=SGD(params(1), lr=0.1, momentum=0.9), model=nn.Linear(2, 2), loss=None, data=None,
                                      history=SimpleNamespace(scheduled={}, steps=range(0)), _schedule=None, _bare=lambda: None)
            learner._callbacks = schedules = make()
            for s in schedules: s.before_fit(learner)
            before = [s.before_batch for s in schedules]
            def run():
                for _ in range(steps):
                    for f in before: f(learner)
                    learner.step += 1
                for s in schedules: s.after_fit(learner)
            return run
        return prepare

    def of_torch(make):
        def prepare():
            opt = SGD(params(1), lr=0.1, momentum=0.9)
            opt._opt_called = True # as after a step of the optimizer, so that it does not warn
            scheduler = make(opt)
            def run():
                for _ in range(steps - 1): scheduler.step()
            return run
        return prepare

    rate, momentum = (lambda: Schedule('lr', one_cycle())), (lambda: Schedule('momentum', momentum_cycle()))
    drop = nn.Sequential(*[nn.Dropout() for _ in range(4)])
    return {'a loop, rate and momentum of SGD': (2, loop(lambda: [rate(), momentum()])),
            'a loop, rate and first beta of AdamW': (2, loop(lambda: [rate(), momentum()], AdamW)),
            'a loop, rate of four groups': (1, loop(lambda: [rate()], groups=4)),
            'a loop, four Dropouts': (1, loop(lambda: [Schedule('dropout', linear(0.5, 0.))], model=drop)),
            'callback, rate and momentum of SGD': (2, callback(lambda: [rate(), momentum()])),
            'OneCycleLR': (2, of_torch(lambda o: lr_scheduler.OneCycleLR(o, 1., total_steps=steps))),
            'CosineAnnealingLR': (1, of_torch(lambda o: lr_scheduler.CosineAnnealingLR(o, steps)))}


def main(repeats=7, steps=5000):
    "Microseconds per step and value; ours beside the target."
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    made, figures = ways(steps), []
    times = paired({n: prepare for n, (_, prepare) in made.items()}, repeats)
    for n, (values, _) in made.items():
        us = [1e6*t/steps/values for t in times[n]]
        peer = n in ('OneCycleLR', 'CosineAnnealingLR')
        figures.append(figure(f'schedules, time per step and value: {"PyTorch, " if peer else ""}{n}', median(us), None if peer else 3, 'µs', note=f'from {min(us):.2f} to {max(us):.2f}'))
    print(figures_table(figures))
    return figures


if __name__ == '__main__': main(*map(int, sys.argv[1:3]))
