"Exercises on schedules: other ways to be right, or wrong, than those that are written beside them."
import math
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from dlpractice.exercises import check, find
from dlpractice.schedules import Schedule, cosine, one_cycle


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch): monkeypatch.setenv('DLPRACTICE_HOME', str(tmp_path/'home'))


def by_library(start, end, k, n): return cosine(start, end)(k/(n - 1))
def by_interpolation(p, top, warm): return float(np.interp(p, [0, warm, 1], [top/10, top, top/1000]))
def by_library_cycle(p, top, warm): return one_cycle(top, 10., 100., warm, 'linear')(p)


def by_sums(first, mult, steps):
    ends = np.cumsum([first*mult**i for i in range(steps)])
    return ends[ends < steps]


def by_schedule(optimizer, f, steps):
    "Ours, from the library."
    with Schedule('lr', f, each=True).attach(steps, optimizer=optimizer) as s:
        for k in range(steps):
            yield k
            s.step()


@contextmanager
def rates_kept(optimizer):
    own = [g['lr'] for g in optimizer.param_groups]
    try: yield own
    finally:
        for g, lr in zip(optimizer.param_groups, own): g['lr'] = lr


def with_a_context(optimizer, f, steps):
    with rates_kept(optimizer) as own:
        for k in range(steps):
            for g, lr in zip(optimizer.param_groups, own): g['lr'] = lr*f(k/(steps - 1) if steps > 1 else 0.)
            yield k


def one_too_few(optimizer, f, steps): yield from with_a_context(optimizer, f, steps - 1)
def a_list(optimizer, f, steps): return list(with_a_context(optimizer, f, steps))


answers = [('1', 114., None), ('1', torch.tensor(114), None), ('1', 500, 'times too large'),
           ('2', by_library, None), ('2', lambda start, end, k, n: float(end + (start - end)*np.cos(np.pi*k/(n - 1)/2)**2), None), ('2', lambda start, end, k, n: torch.tensor(start), 'a tensor, not a number'),
           ('2', lambda start, end, k, n: round(by_library(start, end, k, n), 2), 'It is'), ('2', lambda p: p, 'raises an exception'),
           ('3', by_interpolation, None), ('3', by_library_cycle, None), ('3', lambda p, top, warm: one_cycle(top, 10., 100., warm)(p), 'It is'), ('3', lambda p, top, warm: [top], 'not a number'),
           ('4', by_sums, None), ('4', lambda *a: [0, *by_sums(*a)], 'values, not'), ('4', lambda *a: set(by_sums(*a).tolist()), 'not'), ('4', lambda first, mult, steps: first, 'not'),
           ('5', with_a_context, None), ('5', by_schedule, None), ('5', one_too_few, 'steps, not'), ('5', a_list, 'At step 1'), ('5', 7, 'should be a function'), ('5', lambda optimizer, f: [], 'raises an exception')]


@pytest.mark.parametrize('number, answer, words', answers)
def test_other_answers(number, answer, words):
    box = check(f'schedules/{number}', answer)
    assert (box.kind == 'passed') if words is None else (box.kind == 'failed' and words in str(box)), box


def test_the_oracles_agree_with_the_library():
    for args in ((1., 0., 3, 9), (0.4, 0.1, 0, 2)): assert find('schedules/2').oracle(*args) == pytest.approx(by_library(*args), rel=1e-9)
    for args in ((0., 1., 0.3), (0.7, 2., 0.25), (1., 0.5, 0.4)): assert find('schedules/3').oracle(*args) == pytest.approx(by_library_cycle(*args), rel=1e-9)
    assert find('schedules/1').solved() == math.ceil(math.log(0.1)/math.log(0.98))
