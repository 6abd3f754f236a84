"Stacked nets: each copy trains as it would alone, whatever its neighbours do."
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dlpractice.errors import ArgumentError
from dlpractice.schedules import linear, one_cycle
from dlpractice.small_tasks import cnn, digits_task, letters_task, loader, mlp
from dlpractice.snapshots import seeded
from dlpractice.stacked_nets import NetStack, train_stack

few = digits_task(0, train=100)
net = partial(mlp, 64, 16, 10)


def by_hand(make, task, optimizer, courses, epochs, seed, batch):
    "Losses of a plain loop with torch.optim, its hyperparameters set before each step."
    with seeded(seed):
        model, batches, losses = make(), loader(task, seed, batch), []
        opt = optimizer(model.parameters())
        last = max(1, epochs*len(batches) - 1)
        for _ in range(epochs):
            for x, y in batches:
                for k, f in courses.items(): opt.param_groups[0][k] = f(len(losses)/last)
                loss = F.cross_entropy(model(x), y)
                opt.zero_grad()
                loss.backward()
                opt.step()
                losses.append(loss.item()*len(y))
    sizes = [len(y) for _ in range(epochs) for _, y in loader(task, seed, batch)]
    return np.array(losses).reshape(epochs, -1).sum(1)/np.array(sizes).reshape(epochs, -1).sum(1)


@pytest.mark.parametrize('make,task', [(net, few), (partial(cnn, 1, 10, (4, 6)), letters_task(0, train=100))], ids=['mlp', 'cnn'])
def test_scheduled_sgd_is_torchs(make, task):
    "Rate, momentum and weight decay all move; the neighbour breaks."
    rate, momentum, decay = one_cycle(0.1), linear(0.95, 0.8), linear(0, 0.02)
    ours, broken = train_stack(make, task, [dict(lr=rate, momentum=momentum, weight_decay=decay), dict(lr=1e30)], 4, 3, 32)
    theirs = by_hand(make, task, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), dict(lr=rate, momentum=momentum, weight_decay=decay), 4, 3, 32)
    np.testing.assert_allclose(ours['train_loss'], theirs, rtol=2e-4)
    assert np.isnan(broken['train_loss']).all() and np.isnan(broken['test'])


def test_adamw_is_torchs():
    ours, = train_stack(net, few, [dict(lr=0.01, weight_decay=linear(0, 1))], 4, 3, 32, 'AdamW')
    theirs = by_hand(net, few, lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.9, 0.999)), dict(weight_decay=linear(0, 1)), 4, 3, 32)
    np.testing.assert_allclose(ours['train_loss'], theirs, rtol=2e-4)


def test_copies_share_chance_and_nothing_else():
    "Equal settings give equal runs beside any neighbour, with dropout and augmentation too; other settings give others."
    noisy = lambda x, strength: x.transpose(0, 1)[None] + strength.view(-1, 1, 1, 1, 1)*torch.randn(x.transpose(0, 1).shape)
    make = partial(mlp, 64, 16, 10, dropout=0.5)
    a, b, c, d = train_stack(make, few, [dict(lr=0.1, dropout=p, strength=s) for p, s in ((0.3, 0.1), (0., 0.), (0.3, 0.1), (0.3, 0.5))], 2, 0, 32, augment=noisy)
    assert a == c and a['train_loss'] != b['train_loss'] and a['train_loss'] != d['train_loss']
    plain, = train_stack(make, few, [dict(lr=0.1)], 2, 0, 32)
    np.testing.assert_allclose(b['train_loss'], plain['train_loss'], rtol=1e-4)


def test_dropout_keeps_the_mean():
    with seeded(0): stack, x = NetStack(mlp(64, 4000, 10, dropout=0.5), 2), torch.rand(8, 1, 8, 8)
    kept = stack(x, True, torch.tensor([0.4, 0.]))
    np.testing.assert_allclose(kept[1].detach(), stack(x, False)[1].detach(), rtol=1e-4, atol=1e-5)
    assert 0.005 < (kept[0] - kept[1]).abs().mean() < 0.2


def test_looks_and_refusals():
    run, = train_stack(net, few, [dict(lr=0.1)], 3, 0, 32, every=5)
    assert run['steps'] == [5, 10, 12] and len(run['valid']) == 3 and len(run['train_loss']) == 3
    for wrong in (dict(optimizer='Adam'), dict(settings=[dict(rate=1.)])):
        with pytest.raises(ArgumentError, match='train_stack'): train_stack(**(dict(make_net=net, task=few, settings=[{}], epochs=1, seed=0) | wrong))
    with pytest.raises(ArgumentError, match='Tanh'): NetStack(torch.nn.Sequential(torch.nn.Tanh()), 1)
