"Exercises on fine-tuning: other ways to be right, or wrong, than those that are written beside them."
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dlpractice.exercises import check, find
from dlpractice.heads import replace_head
from dlpractice.param_groups import group_rates
from dlpractice.snapshots import seeded


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch): monkeypatch.setenv('DLPRACTICE_HOME', str(tmp_path/'home'))


def on_features(net, x, y, lr, steps):
    "Features once, then autograd on the head."
    net.eval()
    with torch.no_grad(): f = net[:-1](x)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(net[-1](f), y)
        grads = torch.autograd.grad(loss, list(net[-1].parameters()))
        with torch.no_grad():
            for p, g in zip(net[-1].parameters(), grads): p -= lr*g
        losses.append(loss)
    return torch.stack(losses).detach()


def with_a_copy(net, x, y, lr, steps): return on_features(deepcopy(net), x, y, lr, steps)


def with_adam(net, x, y, lr, steps):
    opt, losses = torch.optim.Adam(net.eval()[-1].parameters(), lr=lr), []
    for _ in range(steps):
        loss = F.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    return losses


answers = [('1', 1495., None), ('1', np.int64(1495), None), ('1', 24, 'times too small'), ('1', 'many', 'should be a number'),
           ('2', lambda lr, factor, n: tuple(np.geomspace(lr/factor**(n - 1), lr, n)), None), ('2', lambda lr, factor, n: group_rates(lr, n, factor), None), ('2', lambda lr, factor, n: torch.tensor([lr/factor**(n - 1 - k) for k in range(n)], dtype=torch.float64), None),
           ('2', lambda lr, factor, n: lr, 'should be a list'), ('2', lambda lr, factor: [lr], 'raises an exception'), ('2', lambda lr, factor, n: [lr]*n, 'It'),
           ('3', lambda x, mean, std: x.permute(0, 2, 3, 1).mul(torch.tensor(std)).add(torch.tensor(mean)).permute(0, 3, 1, 2), None), ('3', lambda x, mean, std: x, 'expected'), ('3', lambda x, mean, std: x.mul_(torch.tensor(std).view(-1, 1, 1)).add_(torch.tensor(mean).view(-1, 1, 1)), 'changes its argument'), ('3', lambda x, mean, std: x.shape, 'expected'),
           ('4', lambda net, classes: replace_head(net, classes, verbose=False), None), ('4', lambda net, classes: nn.Sequential(*list(net)[:-1], nn.Linear(net[-1].in_features, classes, bias=net[-1].bias is not None)), None),
           ('4', lambda net, classes: net, 'The head'), ('4', lambda net, classes: nn.Linear(4, classes), 'not a Sequential'), ('4', 3, 'should be a function'),
           ('5', on_features, None), ('5', with_a_copy, 'not where these steps lead'), ('5', with_adam, 'not where these steps lead'), ('5', lambda *a: 3., 'not'), ('5', 7, 'should be a function'), ('5', lambda net, x, y: [], 'raises an exception')]


@pytest.mark.parametrize('number, answer, words', answers)
def test_other_answers(number, answer, words):
    box = check(f'fine-tuning/{number}', answer)
    assert (box.kind == 'passed') if words is None else (box.kind == 'failed' and words in str(box)), box


def test_the_oracle_of_the_training_agrees_with_autograd():
    with seeded(0): net, x, y = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4)), torch.randn(7, 3), torch.randint(4, (7,))
    right = find('fine-tuning/5').oracle(net, x, y, 0.3, 4)
    assert np.allclose(right['losses'], on_features(net, x, y, 0.3, 4).tolist(), rtol=1e-4)
