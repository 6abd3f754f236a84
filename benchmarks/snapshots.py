"""What `with unchanged(model, optimizer)` costs: taking and putting back a ResNet18 with its gradients and optimizer state.

Warm (host buffers in use again), medians, one and two threads; beside it one plain copy of the parameters, as a measure of the
machine's memory. Run: `python benchmarks/snapshots.py [repeats]`."""
import platform, sys
from statistics import median
from time import perf_counter

import torch
from training_overhead import machine


def main(repeats=25):
    "Milliseconds by optimizer and threads."
    from torchvision.models import resnet18
    from dlpractice.snapshots import release_buffers, unchanged
    made = {'SGD with momentum': lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9), 'AdamW': torch.optim.AdamW}
    figures, before = {}, torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for name, make in made.items():
            model = resnet18()
            opt = make(model.parameters())
            model(torch.randn(2, 3, 64, 64)).sum().backward()
            opt.step()
            params = [p.detach() for p in model.parameters()]
            copies, times, plain = [torch.empty_like(p) for p in params], [], []
            for _ in range(repeats + 2):
                start = perf_counter()
                with unchanged(model, opt): pass
                times.append(1e3*(perf_counter() - start))
                start = perf_counter()
                torch._foreach_copy_(copies, params)
                plain.append(1e3*(perf_counter() - start))
            release_buffers()
            figures[f'{name}, {threads} thread{"s"[:threads - 1]}'] = dict(ms=median(times[2:]), best_ms=min(times[2:]), first_ms=times[0], copy_ms=median(plain[2:]))
    torch.set_num_threads(before)
    print(f'{machine()}, Python {platform.python_version()}, torch {torch.__version__}, {repeats} repeats\n')
    print('| ResNet18 | ms, median | best | first | one copy of the parameters |\n|---|---|---|---|---|')
    for n, f in figures.items(): print(f"| {n} | {f['ms']:.1f} | {f['best_ms']:.1f} | {f['first_ms']:.0f} | {f['copy_ms']:.1f} |")
    return figures


if __name__ == '__main__': main(*map(int, sys.argv[1:2]))
