"Loss planes against loss-landscapes: the same points, the same losses, and the time of the whole call."
import copy, multiprocessing
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from common import bits, figure, figures_table, median, number, one_thread, paired, ratio, table

CASES = {  # name -> (points along each axis, target, target with bf16)
    'MLP 784-256-10, 1,000 samples': (25, 7, 12),
    'CNN with BatchNorm, 512 samples of 1×28×28': (25, 4, 6.5),
    'ResNet18, 128 samples of 3×32×32': (9, 1.15, 1.3),
}
PEER, OURS, HALF = 'loss-landscapes', 'dlpractice', 'dlpractice, bf16'


def cnn():
    "Three convolutions with BatchNorm."
    block = lambda i, o: (nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU())
    return nn.Sequential(*block(1, 16), nn.MaxPool2d(2), *block(16, 32), nn.MaxPool2d(2), *block(32, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def case(name):
    "(model in eval mode, inputs, targets), from a seed; BatchNorm has seen the inputs."
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name.startswith('MLP'): model, x = nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10)), torch.randn(1000, 1, 28, 28)
        elif name.startswith('CNN'): model, x = cnn(), torch.randn(512, 1, 28, 28)
        else:
            from torchvision.models import resnet18
            model, x = resnet18(num_classes=10), torch.randn(128, 3, 32, 32)
        y = torch.randint(10, (len(x),))
        with torch.no_grad(): model(x)
    return model.eval(), x, y


def corners(model, d1, d2, n, span):
    """The three models that make loss-landscapes' `planar_interpolation` visit our grid: its point (i, j) is start + i·(one - start)/n
    + (j + 1)·(two - start)/n in its even columns; in the odd ones it is a step behind, since its walk turns round."""
    step, out = 2*span/(n - 1), []
    for a, b in ((-span, -span - step), (-span + step*n, -span - step), (-span, -span - step + step*n)):
        twin = copy.deepcopy(model)
        with torch.no_grad():
            for k, p in twin.named_parameters():
                if k in d1: p.add_(d1[k], alpha=a).add_(d2[k], alpha=b)
        out.append(twin)
    return out


def peer_process(name, n, span, pipe):
    "loss-landscapes in a process of its own, since dlpractice changes how malloc behaves in its own: prepares on the first word, runs on the second."
    one_thread()
    import loss_landscapes
    from loss_landscapes.metrics import Loss
    from dlpractice.directions import random_direction
    model, x, y = case(name)
    pair = [random_direction(model, i) for i in (1, 2)]
    while pipe.recv():
        three = corners(model, *pair, n, span)
        pipe.send('ready')
        pipe.recv()
        pipe.send(loss_landscapes.planar_interpolation(*three, Loss(F.cross_entropy, x, y), steps=n).T)


def compare(name, rounds, span=0.5, n=None):
    "Times by way, values by way, and how our values differ from a plain loop's."
    from dlpractice.directions import random_direction
    from dlpractice.loss_evaluation import LossSurface
    from dlpractice.loss_planes import loss_plane
    model, x, y = case(name)
    n = n or CASES[name][0]
    pair, values = [random_direction(model, i) for i in (1, 2)], {}
    context = multiprocessing.get_context('spawn')
    pipe, theirs = context.Pipe()
    worker = context.Process(target=peer_process, args=(name, n, span, theirs), daemon=True)
    worker.start()
    def peer():
        pipe.send(True), pipe.recv()
        def run():
            pipe.send(True)
            values[PEER] = pipe.recv()
        return run
    def ours(**kw):
        def run():
            plane = loss_plane(model, F.cross_entropy, (x, y), directions=pair, span=span, n=n, progress=False, **kw)
            values[HALF if kw else OURS] = plane.loss
        return lambda: run
    before = bits(model.state_dict())
    for kw in ({}, dict(bf16=True)): loss_plane(model, F.cross_entropy, (x, y), directions=pair, n=2, progress=False, **kw) # instead of a round of warm-up, which takes minutes
    times = paired({PEER: peer, OURS: ours(), HALF: ours(bf16=True)}, rounds, warmup=0)
    pipe.send(False), worker.join()
    assert bits(model.state_dict()) == before
    surface = LossSurface(model, F.cross_entropy, (x, y), pair, way='plain')
    axis = np.linspace(-span, span, n)
    some = [(i, j) for j in range(0, n, max(1, n//5)) for i in range(0, n, max(1, n//5))]
    plain, _ = surface.at([(axis[i], axis[j]) for i, j in some], progress=False)
    error = {way: max(abs(values[way][j, i]/p - 1) for (i, j), p in zip(some, plain)) for way in (OURS, HALF)}
    error[PEER] = float(np.abs(values[PEER][:, ::2]/values[OURS][:, ::2] - 1).max())
    return times, error, n


def traces():
    "What a plane of random directions leaves behind, and where its centre is."
    import loss_landscapes
    from loss_landscapes.metrics import Loss
    from dlpractice.loss_planes import loss_plane
    rows = []
    for way, fresh in ((PEER, True), (OURS, True), (PEER, False), (OURS, False)):
        model, x, y = case('CNN with BatchNorm')
        if not fresh: # shifts that are no longer zero
            with torch.no_grad(): [m.bias.fill_(0.1) for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        model, x, y = model.train(), x[:32], y[:32]
        own = F.cross_entropy(copy.deepcopy(model).eval()(x), y).item()
        was, needs, modes = bits(dict(model.named_parameters())), [p.requires_grad for p in model.parameters()], [m.training for m in model.modules()]
        stats = bits(dict(model.named_buffers()))
        try: middle = f'{(loss_landscapes.random_plane(model, Loss(F.cross_entropy, x, y), steps=5) if way == PEER else loss_plane(model, F.cross_entropy, (x, y), n=5, progress=False).loss)[2, 2]:.6g}'
        except ZeroDivisionError as e: middle = f'raised ZeroDivisionError ({e})'
        same = lambda o: 'as before' if o else 'changed'
        rows.append([way + ', fresh BatchNorm'*fresh, same(bits(dict(model.named_parameters())) == was), same(bits(dict(model.named_buffers())) == stats), same([p.requires_grad for p in model.parameters()] == needs),
                     same([m.training for m in model.modules()] == modes), middle, f'{own:.6g}'])
    return table(['way', 'weights', 'buffers', '`requires_grad`', 'modes', 'value in the middle of a 5×5 plane', "the model's own loss"], rows)


def main(quick=False):
    "Print the tables; return the figures."
    one_thread()
    figures, rows = [], []
    for name, (_, target, half) in CASES.items():
        times, error, n = compare(name, 3 if quick else 5, n=5 if quick else None)
        for way, goal in ((PEER, None), (OURS, target), (HALF, half)):
            mid, low, high = ratio(times, PEER, way)
            rows.append([name, f'{n}×{n}', way, f'{median(times[way]):.2f}', f'{1e3*median(times[way])/n**2:.2f}', number(mid, 'x'), f'{number(low, "x")} to {number(high, "x")}', f'{error[way]:.0e}'])
            if way == PEER: continue
            if quick: goal = None # on few points the setting up weighs more
            figures.append(figure(f'loss plane, times faster than {PEER}: {name}' + (', bf16' if way == HALF else ''), mid, goal, 'x', True,
                                  f'{n}×{n} points; median of {len(times[way])} paired rounds, quartiles {number(low, "x")} to {number(high, "x")}'))
            figures.append(figure(f'loss plane, largest relative difference from a plain loop: {name}' + (', bf16' if way == HALF else ''), error[way], 5e-3 if way == HALF else 1e-6))
    print('The whole call is timed, with what each tool prepares; one plane per round, the ways interleaved, loss-landscapes in a process of its own. dlpractice with its defaults, so without `compile`, and once '
          'with `bf16=True`. loss-landscapes\' `planar_interpolation` is given the corners of our grid, so both visit as many points of one plane; its values are compared in its even columns, '
          'since the odd ones lie a step off. Random inputs and labels.\n')
    print(table(['net', 'points', 'way', 's', 'ms per point', f'times faster than {PEER}', 'quartiles', 'largest relative difference'], rows))
    print('\nThe difference of dlpractice is that from a plain loop, that of loss-landscapes is from dlpractice.\n\n#### What is left behind\n')
    print(traces() + '\n')
    print(figures_table(figures))
    return figures


if __name__ == '__main__': main()
