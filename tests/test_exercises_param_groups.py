"Exercises on parameter groups: other ways to be right, or wrong, than those that are written beside them."
import copy

import numpy as np
import pytest
import torch
from torch import nn

from dlpractice.exercises import check, find
from dlpractice.param_groups import discriminative, group_rates, layer_groups
from dlpractice.snapshots import seeded


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch): monkeypatch.setenv('DLPRACTICE_HOME', str(tmp_path/'home'))


def by_lists(groups, to):
    "Both halves, as lists."
    for p in sum(groups[:to] if to else [], []): p.requires_grad = False
    for p in sum(groups[to:], []): p.requires_grad = True


def by_gradients(groups, to):
    "Sets something else."
    for g in groups[:to]:
        for p in g: p.grad = None


def on_a_copy(model, x):
    "Leaves the model alone, since it runs a copy; hooks before the run, not after it."
    net, seen = copy.deepcopy(model), {}
    for name, m in net.named_modules():
        if m._parameters: m.register_forward_pre_hook(lambda m, args, name=name: seen.setdefault(name))
    net(x)
    return list(seen)


def in_eval_mode(model, x):
    "Statistics stay, and the mode does not."
    seen, hooks = {}, [m.register_forward_hook(lambda *_, n=n: seen.setdefault(n)) for n, m in model.named_modules() if m._parameters]
    model.eval()(x)
    for h in hooks: h.remove()
    return list(seen)


answers = [('1', 45.7, None), ('1', 46, None), ('1', torch.tensor(45.), None), ('1', 1/45.7, 'times too small'), ('1', '46', 'should be a number'),
           ('2', lambda head, n, factor: group_rates(head, n, factor), None), ('2', lambda head, n, factor: (head*factor**np.arange(1. - n, 1)).tolist(), None), ('2', lambda head, n, factor: head*factor**np.arange(1. - n, 1), 'an array'),
           ('2', lambda head, n, factor: [round(head/factor**(n - 1 - k), 3) for k in range(n)], 'It is'), ('2', lambda head, n, factor: head/factor, 'not 1 values'),
           ('3', lambda name, module: getattr(module, name).ndim >= 2, None), ('3', lambda name, module: 'weight' in name and not isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)), None),
           ('3', lambda name, module: True, 'another one'), ('3', lambda name, module: getattr(module, name).numel() > 3, 'another one'), ('3', lambda name, module: 1, 'another one'),
           ('4', by_lists, None), ('4', by_gradients, 'Other groups are trained'), ('4', lambda groups, to: [p.requires_grad_(True) for g in groups for p in g], 'Other groups are trained'), ('4', 3, 'should be a function'), ('4', lambda groups: groups.clear(), 'raises an exception'),
           ('5', on_a_copy, None), ('5', in_eval_mode, 'in another mode'), ('5', lambda model, x: sorted(n for n, m in model.named_modules() if m._parameters), 'or their order'), ('5', lambda model, x: model(x), 'not a list of names'), ('5', 'a, b', 'should be a function')]


@pytest.mark.parametrize('number, answer, words', answers)
def test_other_answers(number, answer, words):
    box = check(f'param-groups/{number}', answer)
    assert (box.kind == 'passed') if words is None else (box.kind == 'failed' and words in str(box)), box


def test_oracles_agree_with_the_library():
    for c in find('param-groups/3').cases():
        module = copy.deepcopy(c.args[1])
        decays = {n: g['weight_decay'] > 0 for g in discriminative(layer_groups(module, by=['']), 1., weight_decay=0.1) for n, p in module.named_parameters() for q in g['params'] if p is q}
        assert decays[c.args[0]] == find('param-groups/3').oracle(*c.args)
    with seeded(0): cases = find('param-groups/5').cases()
    for c in cases:
        model, x = c.args
        groups = layer_groups(model, example=x)
        ran = list(dict.fromkeys(n.rpartition('.')[0] for g in groups for n in g.names))
        assert ran == find('param-groups/5').oracle(copy.deepcopy(model), x)['names']
