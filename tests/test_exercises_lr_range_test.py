"Exercises on the LR range test: other ways to be right, or wrong, than those that are written beside them."
import math
from copy import deepcopy

import numpy as np
import pytest
import torch

from dlpractice.exercises import check, find
from dlpractice.lr_finder import landmarks, lr_range_test, rates, smooth
from dlpractice.snapshots import seeded


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch): monkeypatch.setenv('DLPRACTICE_HOME', str(tmp_path/'home'))


def by_reaching_hi(lo, hi, n): return math.exp((math.log(hi) - math.log(lo))/(n - 1))


def in_vectors(losses, factor):
    s = smooth(losses)
    with np.errstate(invalid='ignore'): bad = ~np.isfinite(losses) | (s > factor*np.minimum.accumulate(s))
    return int(bad.argmax()) if bad.any() else None


def with_a_copy(model, loss_fn, batches, lrs):
    "Leaves the model alone, since it trains a copy."
    net, losses = deepcopy(model).train(), []
    for i, lr in enumerate(lrs):
        x, y = batches[i % len(batches)]
        loss = loss_fn(net(x), y)
        if not torch.isfinite(loss): break
        losses.append(loss)
        grads = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for p, g in zip(net.parameters(), grads): p -= lr*g
    return torch.stack(losses).detach() if losses else losses


def with_a_shared_state(model, loss_fn, batches, lrs):
    "A `state_dict` that is trained, too."
    kept, solved = model.state_dict(), with_a_copy(model, loss_fn, batches, lrs)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    loss_fn(model.train()(batches[0][0]), batches[0][1]).backward()
    opt.step()
    model.load_state_dict(kept)
    return solved


def with_momentum(model, loss_fn, batches, lrs):
    net, losses = deepcopy(model).train(), []
    opt = torch.optim.SGD(net.parameters(), lr=1., momentum=0.9)
    for i, lr in enumerate(lrs):
        opt.param_groups[0]['lr'] = float(lr)
        loss = loss_fn(net(batches[i % len(batches)][0]), batches[i % len(batches)][1])
        if not torch.isfinite(loss): break
        losses.append(loss.item())
        opt.zero_grad()
        loss.backward()
        opt.step()
    return losses


def endless(model, loss_fn, batches, lrs):
    i = 0
    while True: i = (i + 1) % len(lrs)


answers = [('1', 64., None), ('1', torch.tensor(64), None), ('1', 145, 'times too large'),
           ('2', by_reaching_hi, None), ('2', lambda lo, hi, n: float(np.geomspace(lo, hi, n)[1]/lo), None), ('2', lambda lo, hi, n: torch.tensor((hi/lo)**(1/(n - 1))), 'a tensor, not a number'),
           ('2', lambda lo, hi, n: round((hi/lo)**(1/(n - 1)), 3), 'It is'), ('2', lambda lo, hi, n: rates(lo, hi, n), 'an array, not a number'), ('2', lambda lo, hi: hi/lo, 'raises an exception'),
           ('3', in_vectors, None), ('3', lambda losses, factor: len(losses) - 1, 'no reason to'), ('3', lambda losses, factor: losses.clear(), 'should stop at index 0'), ('3', lambda losses, factor: in_vectors(losses, factor) or 0, 'no reason to'),
           ('3', lambda losses, factor: 'never', 'not a number'), ('3', lambda losses, factor: np.int64(2), 'It is 2, not 0'),
           ('4', lambda lrs, losses: next(lr for lr, o in zip(lrs, losses) if o < landmarks(losses)[0] - landmarks(losses)[2]/2), None), ('4', lambda lrs, losses: lrs, 'an array, not a number'),
           ('4', lambda lrs, losses: lrs[losses.argmin()], 'It is'), ('4', lambda lrs, losses: lrs[losses < 2.3][0], 'It is'),
           ('5', with_a_copy, None), ('5', with_a_shared_state, 'is left with other values in weight'), ('5', with_momentum, 'The losses: Value 2'), ('5', lambda *a: (a[-1], with_a_copy(*a)), 'raises an exception'),
           ('5', lambda *a: 3., 'not 1 values'), ('5', lambda *a: [], '0 values'), ('5', 7, 'should be a function'), ('5', lambda model, loss_fn, batches: [], 'raises an exception')]


@pytest.mark.parametrize('number, answer, words', answers)
def test_other_answers(number, answer, words):
    box = check(f'lr-range-test/{number}', answer)
    assert (box.kind == 'passed') if words is None else (box.kind == 'failed' and words in str(box)), box


def test_an_endless_test_is_ended(monkeypatch):
    monkeypatch.setattr(find('lr-range-test/5'), 'seconds', 1.)
    assert 'does not come to an end' in str(check('lr-range-test/5', endless))


def test_the_oracle_of_the_test_agrees_with_the_instrument():
    "Both take the same steps, though one of them is written with copies and no optimizer."
    exercise, lrs = find('lr-range-test/5'), rates(1e-3, 0.1, 12)
    with seeded(0): net, data = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1)), [(torch.randn(5, 2), torch.randn(5, 1)) for _ in range(3)]
    theirs = lr_range_test(net, torch.nn.functional.mse_loss, data, lambda p: torch.optim.SGD(p, lr=1.), start=1e-3, end=0.1, steps=12, repeats=1, most=1, progress=False)
    ours = exercise.oracle(deepcopy(net), torch.nn.functional.mse_loss, data, lrs)['losses']
    assert np.allclose(ours[:len(theirs.losses)], theirs.losses, rtol=1e-5) and len(theirs.losses) == 12


def test_the_oracle_of_the_rule_agrees_with_landmarks():
    for lrs, losses in (o.args if hasattr(o, 'args') else o for o in find('lr-range-test/4').cases()):
        level, low, depth = landmarks(losses)
        right = find('lr-range-test/4').oracle(lrs, losses)
        assert right <= lrs[low] and losses[list(lrs).index(right)] < level - depth/2
