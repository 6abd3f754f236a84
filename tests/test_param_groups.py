"Layer groups of any model: a partition in order of execution; rates; freezing; and no trace left of looking."
import copy, pickle, warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from dlpractice.data import Batches
from dlpractice.errors import ArgumentError
from dlpractice.lr_finder import lr_range_test
from dlpractice.param_groups import add_groups, discriminative, distance_moved, freeze, freeze_batchnorm, group_rates, layer_groups, show_groups, unfreeze
from dlpractice.snapshots import seeded
from dlpractice.training import Learner


def cnn(seed=0):
    with seeded(seed): return nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
                                            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


def batch(n=16, seed=1):
    with seeded(seed): return torch.randn(n, 1, 16, 16), torch.arange(n) % 3


def is_partition(groups, model):
    ids = [id(p) for g in groups for p in g.parameters]
    assert len(ids) == len(set(ids)) and set(ids) == set(map(id, model.parameters())) and all(len(g) for g in groups)
    known = dict(model.named_parameters())
    assert all(known[n] is p for g in groups for n, p in zip(g.names, g.parameters))
    return True


# ---- freezing

def test_freeze_and_unfreeze_leave_no_trace():
    model, (x, y) = cnn(), batch()
    keys = [set(vars(m)) for m in model.modules()]
    state = copy.deepcopy(model.state_dict())
    groups = freeze(model, example=x)
    assert [g.frozen for g in groups] == [True]*(len(groups) - 1) + [False] and list(model.state_dict()) == list(state)
    model.train()
    opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        opt.zero_grad()
        F.cross_entropy(model(x), y).backward()
        opt.step()
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, state[n])}
    assert changed == set(groups[-1].names)
    unfreeze(model)
    assert all(p.requires_grad for p in model.parameters()) and [type(m) for m in model.modules()] == [type(m) for m in cnn().modules()]
    assert [set(vars(m)) for m in model.modules()] == keys and all(m.training for m in model.modules())


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: torch.compile(m, backend='eager', fullgraph=True)], ids=['deepcopy', 'pickle', 'compile'])
def test_frozen_batchnorm_stays_frozen(copied):
    model, (x, _) = cnn(), batch()
    model(x) # statistics of its own
    assert freeze_batchnorm(model) == ['1', '4']
    right = model.eval()(x)
    other = copied(model).train()
    before = [b.clone() for b in other.buffers()]
    assert torch.equal(other(x), right) and all(map(torch.equal, before, other.buffers()))
    assert not any(p.requires_grad for m in model if isinstance(m, nn.BatchNorm2d) for p in m.parameters()) and model[0].weight.requires_grad
    unfreeze(other)
    other(x)
    assert not all(map(torch.equal, before, other.buffers())) and all(p.requires_grad for p in other.parameters())
