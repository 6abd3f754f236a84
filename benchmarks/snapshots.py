"""What `with unchanged(model, optimizer)` costs: taking and putting back a ResNet18 with its gradients and optimizer state.

Warm (host buffers in use again), medians, one and two threads; in turn with it `copy.deepcopy` of model and optimizer together,
which puts nothing back. Run: `python benchmarks/snapshots.py [repeats]`."""
import copy, sys
from statistics import median
from time import perf_counter

import torch
from common import figure, figures_table

MADE = {'SGD with momentum': (lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9), 20), 'AdamW': (torch.optim.AdamW, 28)}


def timed(f):
    "Milliseconds of one call."
    start = perf_counter()
    f()
    return 1e3*(perf_counter() - start)


def main(repeats=25):
    "Milliseconds by optimizer and threads."
    from torchvision.models import resnet18
    from dlpractice.snapshots import release_buffers, unchanged
    figures, before = [], torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for name, (make, target) in MADE.items():
            model = resnet18()
            opt = make(model.parameters())
            model(torch.randn(2, 3, 64, 64)).sum().backward()
            opt.step()
            def ours():
                with unchanged(model, opt): pass
            rounds = [(timed(ours), timed(lambda: copy.deepcopy((model, opt)))) for _ in range(repeats + 2)][2:]
            release_buffers()
            ms, copied = zip(*rounds)
            ratio = median(a/b for a, b in rounds)
            figures.append(figure(f'`unchanged` around nothing, ResNet18, {name}, {threads} thread{"s"[:threads - 1]}', median(ms), target, 'ms',
                                  note=f'best {min(ms):.1f}; {ratio:.2f} of `deepcopy` alone, which takes {median(copied):.1f} ms'))
    torch.set_num_threads(before)
    print(figures_table(figures))
    return figures


if __name__ == '__main__': main(*map(int, sys.argv[1:2]))
