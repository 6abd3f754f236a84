"Exercises on optimizers: other ways to be right, or wrong, than those that are written beside them."
from functools import partial

import pytest
import torch

from dlpractice import optimizers
from dlpractice.exercises import check, find


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch): monkeypatch.setenv('DLPRACTICE_HOME', str(tmp_path/'home'))


def by_ours(make, p, grads):
    "With the optimizers of the lesson."
    w = torch.nn.Parameter(p.clone())
    opt = make([w])
    for g in grads:
        w.grad = g.clone()
        opt.step()
    return w.detach()


def velocity_with_the_rate(p, grads, lr, momentum):
    v = torch.zeros_like(p)
    for g in grads:
        v = momentum*v - lr*g
        p = p + momentum*v - lr*g
    return p


def in_place(p, grads, lr, alpha, eps):
    for g in grads: p -= lr*g
    return p


def decay_beside(p, grads, lr, betas, eps, weight_decay):
    m, v = torch.zeros_like(p), torch.zeros_like(p)
    for t, g in enumerate(grads):
        m, v = m.lerp(g, 1 - betas[0]), v.lerp(g*g, 1 - betas[1])
        p = p - lr*(weight_decay*p + m/(1 - betas[0]**(t + 1))/((v/(1 - betas[1]**(t + 1)))**0.5 + eps))
    return p


answers = [('1', 0.01, None), ('1', torch.tensor(0.01), None), ('1', -0.01, 'Off by'), ('1', 1e-4, '100 times too small'), ('1', 'the rate', 'should be a number'),
           ('2', lambda bends: 1/((max(bends) + min(bends))/2), None), ('2', lambda bends: 2/(sorted(bends)[0] + sorted(bends)[-1]), None), ('2', lambda bends: bends.sort() or 2/(bends[0] + bends[-1]), 'changes its argument'),
           ('2', lambda bends: 0.04, 'It is 0.04'), ('2', lambda bends: torch.tensor(2/(max(bends) + min(bends))), 'a tensor, not a number'),
           ('3', velocity_with_the_rate, None), ('3', lambda p, grads, lr, momentum: by_ours(partial(optimizers.SGD, lr=lr, momentum=momentum, nesterov=True), p, grads), None),
           ('3', lambda p, grads, lr, momentum: p - lr*sum(grads), 'numbers'), ('3', lambda p, grads, lr, momentum: [p], 'not a tensor'),
           ('4', lambda p, grads, lr, alpha, eps: by_ours(partial(optimizers.RMSprop, lr=lr, alpha=alpha, eps=eps), p, grads), None), ('4', in_place, 'wrong'),
           ('4', lambda p, grads, lr, alpha, eps: by_ours(partial(optimizers.RMSprop, lr=lr, alpha=alpha, eps=eps, centered=True), p, grads), 'wrong'),
           ('5', decay_beside, None), ('5', lambda p, grads, lr, betas, eps, weight_decay: by_ours(partial(optimizers.AdamW, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay), p, grads), None),
           ('5', lambda p, grads, lr, betas, eps, weight_decay: by_ours(partial(optimizers.Adam, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay), p, grads), 'a penalty in the loss'),
           ('5', lambda p, grads, lr, betas, eps, weight_decay: by_ours(partial(optimizers.AdamW, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=True), p, grads), 'wrong'),
           ('5', lambda p, grads: p, 'raises an exception')]


@pytest.mark.parametrize('number, answer, words', answers)
def test_other_answers(number, answer, words):
    box = check(f'optimizers/{number}', answer)
    assert (box.kind == 'passed') if words is None else (box.kind == 'failed' and words in str(box)), box


def test_the_oracle_of_the_best_rate_is_the_closed_form():
    for args in (o.args if hasattr(o, 'args') else o for o in find('optimizers/2').cases()):
        assert find('optimizers/2').oracle(*args) == pytest.approx(2/(max(args[0]) + min(args[0])), rel=1e-6)
