"Exercises on augmentation: other ways to be right, or wrong, than those that are written beside them."
from copy import deepcopy

import pytest
import torch
from torch.nn import functional as F

from dlpractice.affine_maps import flips, follow_boxes
from dlpractice.augment import Flip, Mixup, tta
from dlpractice.exercises import check


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch): monkeypatch.setenv('DLPRACTICE_HOME', str(tmp_path/'home'))


def by_maps(boxes, width):
    n = len(boxes)
    return follow_boxes(boxes, flips(torch.ones(n).bool(), torch.zeros(n).bool(), (99, width)), (99, width)).long()


def in_place(x, coins):
    x[coins] = x[coins].flip(-1)
    return x


def with_a_copy(model, views):
    net = deepcopy(model).eval()
    return torch.stack([net(x).softmax(1) for x in views]).mean(0).detach()


def with_gradients(model, views): return torch.stack([deepcopy(model).eval()(x).softmax(1) for x in views]).mean(0)


answers = [('1', torch.tensor(0.96875), None), ('1', 0.97, None), ('1', 0.9, 'Off by'), ('1', 'often', 'a number'),
           ('2', lambda x, coins: Flip().apply(x, (coins, torch.zeros_like(coins))), None), ('2', lambda x, coins: torch.stack([p.flip(-1) if c else p for p, c in zip(x, coins)]), None), ('2', in_place, 'changes its argument'),
           ('2', lambda x, coins: x, 'numbers'), ('2', lambda x: x, 'raises an exception'), ('3', by_maps, None), ('3', lambda boxes, width: by_maps(boxes, width).float(), 'floats'), ('3', lambda boxes, width: width - boxes, 'numbers'),
           ('4', lambda y, partner, share, classes: Mixup(classes).labels(y, Mixup().draw(len(y), (1, 1))._replace(share=share, partner=partner), (1, 1)), None),
           ('4', lambda y, partner, share, classes: F.one_hot(y, classes), 'whole numbers'), ('4', lambda y, partner, share, classes: y, 'axes'),
           ('5', with_a_copy, None), ('5', with_gradients, 'keeps its graph'), ('5', lambda model, views: tta(model, views[0], 0), 'numbers'), ('5', 3, 'should be a function')]


@pytest.mark.parametrize('number, answer, words', answers)
def test_other_answers(number, answer, words):
    box = check(f'augment/{number}', answer)
    assert (box.kind == 'passed') if words is None else (box.kind == 'failed' and words in str(box)), box
