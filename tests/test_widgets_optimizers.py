"The explorer of optimizers: each position is the walk that its settings make, told in words and pictures."
import re

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from dlpractice.errors import ArgumentError
from dlpractice.optimizers import RMSprop, SGD
from dlpractice.widgets_optimizers import descent, optimizer_explorer

H = torch.tensor([1., 20.], dtype=torch.float64)
SLIDERS = {'learning rate': [0.01, 0.09, 0.2], 'momentum': [0., 0.5]}


def loss(p): return (H*p*p).sum(-1)/2


def make(params, lr, momentum): return SGD(params, lr=lr, momentum=momentum)


def test_a_walk_is_gradient_descent():
    points, losses = descent(loss, (2., 1.), lambda ps: SGD(ps, lr=0.03), 20)
    assert np.allclose(points, np.array([2., 1.])*(1 - 0.03*H.numpy())**np.arange(21)[:, None])
    assert np.allclose(losses, loss(torch.from_numpy(points)).numpy())


def test_every_position_tells_its_own_walk():
    before = plt.get_fignums()
    o = optimizer_explorer(loss, (2., 1.), make, SLIDERS, steps=30)
    for i, lr in enumerate(SLIDERS['learning rate']):
        for j, m in enumerate(SLIDERS['momentum']):
            losses, html = descent(loss, (2., 1.), lambda ps: make(ps, lr, m), 30)[1], o.html(i, j)
            assert f'{losses[-1]:.2g}' in html
            assert ('leaves the valley' in html) == (losses[-1] > losses[0])
            assert ('99 %' in html) == bool((losses <= 0.01*losses[0]).any() and losses[-1] <= losses[0])
            assert all(len(alt) > 20 for alt in re.findall(r'alt="([^"]*)"', html))
    assert len({o.html(i, j) for i in range(3) for j in range(2)}) == 6 and plt.get_fignums() == before


def test_a_walk_that_does_not_stay():
    o = optimizer_explorer(loss, (2., 1.), lambda ps, lr: RMSprop(ps, lr=lr, alpha=0.5), {'learning rate': [0.05, 0.4]}, steps=60)
    assert 'does not stay' in o.html(1)


def test_a_walk_to_infinity_is_drawn():
    o = optimizer_explorer(loss, (2., 1.), make, {'learning rate': [0.05, 1e120], 'momentum': [0., 0.1]}, steps=30)
    assert 'leaves the valley' in o.html(1, 0)


@pytest.mark.parametrize('how, words', [(dict(sliders={}), 'at least two values'), (dict(sliders={'lr': [1.]}), 'at least two values'), (dict(start=(0., 0.)), 'above 0'),
                                        (dict(loss=lambda p: p), 'heights'), (dict(steps=1), 'a whole number from 2 up')])
def test_refused(how, words):
    with pytest.raises(ArgumentError, match=words): optimizer_explorer(**(dict(loss=loss, start=(2., 1.), make=make, sliders=SLIDERS) | how))
