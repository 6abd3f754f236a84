"Metrics against scikit-learn, on inputs that vary."
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sklearn import metrics as sk

from dlpractice.errors import ArgumentError, DataError, ShapeError
from dlpractice.metrics import Mean, accuracy, confusion, error, top_k


@st.composite
def answers(draw):
    "Predictions without ties, and targets."
    n, classes, seed = draw(st.integers(1, 60)), draw(st.integers(2, 12)), draw(st.integers(0, 10**6))
    g = torch.Generator().manual_seed(seed)
    pred = torch.argsort(torch.rand(n, classes, generator=g), 1).to(draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16])))
    return pred, torch.randint(0, classes, (n,), generator=g)


@settings(max_examples=60, deadline=None)
@given(answers())
def test_equal_to_scikit_learn(a):
    pred, target = a
    classes, top = pred.shape[1], pred.argmax(1)
    assert accuracy(pred, target).item() == pytest.approx(sk.accuracy_score(target, top), abs=1e-6)
    assert error(pred, target).item() == pytest.approx(1 - sk.accuracy_score(target, top), abs=1e-6)
    assert np.array_equal(confusion(pred, target), sk.confusion_matrix(target, top, labels=range(classes)))
    assert torch.equal(confusion(top, target, classes), confusion(pred, target))
    for k in {1, classes//2, classes} - {0}:
        hits = [t in row for t, row in zip(target.tolist(), pred.argsort(1, descending=True)[:, :k].tolist())]
        assert top_k(pred, target, k).item() == pytest.approx(np.mean(hits), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(answers(), st.integers(1, 20))
def test_mean_over_batches_is_the_mean_over_all(a, size):
    pred, target = a
    m = Mean()
    for p, t in zip(pred.split(size), target.split(size)): m.update(accuracy(p, t), len(t))
    assert m.value == pytest.approx(accuracy(pred, target).item(), abs=1e-6) and m.count == len(target)
    m.reset()
    assert np.isnan(m.value)


def test_mean_rejects_the_plausible_wrong_answer():
    "The unweighted mean of batch means is not what comes out."
    m = Mean().update(torch.tensor(1.), 64).update(torch.tensor(0.), 2)
    assert m.value == pytest.approx(64/66, abs=1e-9) and m.value != pytest.approx(.5, abs=.1)


def test_mean_leaves_its_input_alone():
    v = torch.tensor(2., requires_grad=True)
    m = Mean().update(v, 3).update(v, 1)
    assert v.item() == 2. and m.value == 2. and not m.total.requires_grad


@pytest.mark.parametrize('f', [accuracy, error, top_k, confusion])
@pytest.mark.parametrize('pred, target', [((4, 6), (3,)), ((4,), (4,)), ((4, 6), (4, 1)), ((2, 2, 6), (4,)), ((0, 6), (0,))])
def test_bad_shapes(f, pred, target):
    with pytest.raises(ShapeError, match=f.__name__): f(torch.zeros(pred), torch.zeros(target).long())


def test_bad_values():
    p, t = torch.eye(3), torch.arange(3)
    with pytest.raises(ShapeError, match='whole-number'): accuracy(p, t.float())
    for k in (0, 4):
        with pytest.raises(ArgumentError, match='1 to 3'): top_k(p, t, k)
    with pytest.raises(DataError, match='argument target'): confusion(p, t-1)
    with pytest.raises(DataError, match='argument pred'): confusion(t+1, t, classes=3)
    with pytest.raises(ArgumentError, match='classes'): confusion(t, t)
