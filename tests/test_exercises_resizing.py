"Exercises on progressive resizing: other ways to be right, or wrong, than those that are written beside them."
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from dlpractice.exercises import check, find
from dlpractice.resizing import SizePlan, recalibrate_batchnorm, resize_batch


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch): monkeypatch.setenv('DLPRACTICE_HOME', str(tmp_path/'home'))


def by_a_loop(steps, p):
    for start, size in reversed(steps):
        if start <= p: return size


def by_torch(size, layers):
    try: return nn.Sequential(*[nn.MaxPool2d(k, s, p) if 2*p <= k else nn.Conv2d(1, 1, k, s, p) for k, s, p in layers])(torch.zeros(1, 1, size, size)).shape[-1]
    except RuntimeError: return 0


def by_view(x, k):
    n, c, h, w = x.shape
    return x.view(n, c, h//k, k, w//k, k).mean((3, 5))


def by_update_bn(model, batches):
    modes = [(m, m.training) for m in model.modules()]
    for m in model.modules(): m.training = isinstance(m, nn.BatchNorm1d)
    model.training = False
    sums, hooks = {}, []
    for m in model.modules():
        if isinstance(m, nn.BatchNorm1d): hooks.append(m.register_forward_pre_hook(lambda m, a: sums.setdefault(m, []).append((a[0].mean(0), a[0].var(0)))))
    with torch.no_grad():
        for x in batches: model(x)
    for h in hooks: h.remove()
    for m, o in sums.items():
        m.running_mean.copy_(torch.stack([a for a, _ in o]).mean(0)); m.running_var.copy_(torch.stack([b for _, b in o]).mean(0))
    for m, mode in modes: m.training = mode


answers = [('1', 0.515625, None), ('1', 0.52, None), ('1', 0.25, 'times too small'), ('1', (1, 2), 'should be a number'),
           ('2', by_a_loop, None), ('2', lambda steps, p: SizePlan(steps)(p), None), ('2', lambda steps, p: steps[-1][1], 'It is'), ('2', lambda steps: 3, 'raises an exception'),
           ('3', by_torch, None), ('3', lambda size, layers: size, 'It is'), ('3', lambda size, layers: 'none', 'not a number'),
           ('4', by_view, None), ('4', resize_batch, 'The shape'), ('4', lambda x, k: x.mul_(2)[..., ::k, ::k], 'wrong'),
           ('5', recalibrate_batchnorm, None), ('5', by_update_bn, None), ('5', lambda model, batches: update_bn(batches, model), 'ropout'), ('5', lambda model, batches: model.eval(), 'statistics'), ('5', 3, 'should be a function')]


@pytest.mark.parametrize('number, answer, words', answers)
def test_other_answers(number, answer, words):
    box = check(f'resizing/{number}', answer)
    assert (box.kind == 'passed') if words is None else (box.kind == 'failed' and words in str(box)), box


@pytest.mark.parametrize('number', '2345')
def test_known_mistakes_are_refused_by_name(number):
    exercise = find(f'resizing/{number}')
    for mistake in exercise.mistakes:
        box = check(exercise.id, mistake.answer)
        assert box.kind == 'failed' and mistake.says.split(':')[0][:30] in str(box).replace('\n', ' '), (mistake.says, str(box))


@pytest.mark.parametrize('number', '2345')
def test_solutions_pass(number): assert check(f'resizing/{number}', find(f'resizing/{number}').solved()).kind == 'passed'
