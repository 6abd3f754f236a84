"Explorers: what the browser would show at each position, from the stored state alone; layers, alt texts, sizes; and what they refuse."
import base64, io, json, re
from copy import deepcopy
from html.parser import HTMLParser
from itertools import product

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image
from torch import nn
from torch.nn import functional as F

from conftest import root
from dlpractice.errors import ArgumentError
from dlpractice.explorers import Frame, Scene, explorer
from dlpractice.layer_shapes import trace_shapes
from dlpractice.loss_planes import LossPlane, Trajectory, loss_plane
from dlpractice.lr_finder import RangeTest
from dlpractice.param_groups import group_rates, layer_groups
from dlpractice.plots import axes
from dlpractice.snapshots import seeded
from dlpractice.widgets import descent_explorer, model_at, plane_explorer, rate_explorer, shape_explorer
from dlpractice.widgets_param_groups import groups_explorer


# ---- a browser in thirty lines: it knows links and stacks, and nothing of our code

def stored(o):
    "(state of the widgets, id of the outermost), as a notebook stores them."
    from ipywidgets.embed import dependency_state
    return {k: v['state'] for k, v in dependency_state(o.widget, drop_defaults=False).items()}, o.widget.model_id


def inside(state, key):
    "The ids of a widget and of all that it shows, seen or not."
    yield key
    for o in state[key].get('children', []): yield from inside(state, o.removeprefix('IPY_MODEL_'))


def named(state, key, name): return [o for o in inside(state, key) if state[o]['_model_name'] == name]


def move(state, key, attribute, value):
    "The state after one value was changed, and everything linked to it."
    state = deepcopy(state)
    links = [[(o[0].removeprefix('IPY_MODEL_'), o[1]) for o in (s['source'], s['target'])] for s in state.values() if s['_model_name'] == 'LinkModel']
    todo = [(key, attribute)]
    state[key][attribute] = value
    while todo:
        end = todo.pop()
        for pair in links:
            for a, b in (pair, pair[::-1]):
                if a == end and state[b[0]].get(b[1]) != value:
                    state[b[0]][b[1]] = value
                    todo.append(b)
    return state


def seen(state, key):
    "What is to be seen, as HTML."
    o = state[key]
    if o['_model_name'] == 'HTMLModel': return o['value']
    children = [c.removeprefix('IPY_MODEL_') for c in o.get('children', [])]
    return ''.join(seen(state, c) for c in ([children[o['selected_index']]] if o['_model_name'] == 'StackModel' else children))


class Pictures(HTMLParser):
    "(alt text, bytes) of each picture."
    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if tag == 'img': self.found.append((a['alt'], base64.b64decode(a['src'].split(',')[1])))


def everywhere(state, key):
    "(position, what is seen there) for all positions of the sliders."
    sliders = named(state, key, 'SelectionSliderModel')
    for at in product(*(range(len(state[s]['_options_labels'])) for s in sliders)):
        now = state
        for s, i in zip(sliders, at): now = move(now, s, 'index', i)
        yield at, seen(now, key)


# ---- the engine

def square(color):
    return Image.new('RGB', (40, 40), color)


def text(*at): return square('white'), f'alt "{at}" <b> & more', f'text {at}'


SHAPES = [dict(sliders={'a': [1, 2, 3]}), dict(sliders={'a': [1, 2, 3]}, start=2, play=True), dict(sliders={'a': [1, 2], 'b': 'x y z'.split()}, start=(1, 0)),
          dict(sliders={'a': [1, 2], 'b': [3, 4], 'c': [5., 6., 7.]}), dict(sliders={'a': [1, 1, 1]})]


@pytest.mark.parametrize('how', SHAPES, ids=str)
def test_each_position_shows_its_own(how):
    o = explorer(text, **how)
    state, key = stored(o)
    values = list(how['sliders'].values())
    for at, html in everywhere(state, key):
        here = tuple(v[i] for v, i in zip(values, at))
        assert re.findall(r'text \(.*?\)', html) == [f'text {here}'.replace("'", '&#x27;')]
        assert [p[0] for p in Pictures(html).found] == [f'alt "{here}" <b> & more']
        assert html == o.html(*at)
    assert seen(state, key) == o.html(*o.start)


def test_the_browser_sees_a_missing_link():
    state, key = stored(explorer(text, {'a': [1, 2], 'b': [1, 2, 3]}))
    full = [html for _, html in everywhere(state, key)]
    assert len(set(full)) == 6
    for link in [k for k, s in state.items() if s['_model_name'] == 'LinkModel']:
        assert [html for _, html in everywhere({k: s for k, s in state.items() if k != link}, key)] != full


def test_play_moves_slider_and_picture():
    o = explorer(text, {'a': [1, 2, 3]}, play=True, interval=123)
    state, key = stored(o)
    play, = named(state, key, 'PlayModel')
    slider, = named(state, key, 'SelectionSliderModel')
    assert (state[play]['min'], state[play]['max'], state[play]['interval']) == (0, 2, 123)
    state = move(state, play, 'value', 2)
    assert state[slider]['index'] == 2 and seen(state, key) == o.html(2)


def test_a_list_of_pictures():
    o = explorer([text(i) for i in 'abc'], {'step': [7, 7, 9]})
    assert ["text ('b',)" in html.replace('&#x27;', "'") for _, html in everywhere(*stored(o))] == [False, True, False]


def test_sliders_are_named_and_stay_within_the_page():
    state, key = stored(explorer(text, {'learning rate': [1, 2], 'a very long name that says what moves': [1, 2]}))
    sliders = [state[s] for s in named(state, key, 'SelectionSliderModel')]
    assert [s['description'] for s in sliders] == ['learning rate', 'a very long name that says what moves']
    for s in sliders:
        assert s['tooltip'] and not s['readout'] and not s['disabled']
        assert state[s['style'].removeprefix('IPY_MODEL_')]['description_width'] == 'initial' # or a long name is cut
        assert state[s['layout'].removeprefix('IPY_MODEL_')]['width'] == 'auto'


def test_live_draws_when_asked():
    drawn = []
    o = explorer(lambda *at: drawn.append(at) or text(*at), {'a': range(50), 'b': range(50)}, live=True)
    assert drawn == [(0, 0)] and o.top.value == o.html(0, 0)
    o.sliders[0].index = 7
    o.sliders[1].index = 9
    assert drawn == [(0, 0), (7, 0), (7, 9)] and o.top.value == o.html(7, 9)
    o.sliders[1].index = 0
    assert len(drawn) == 3 and o.top.value == o.html(7, 0)


def test_shown_as_widget_and_as_text():
    o = explorer(text, {'learning rate': [0.001, 0.1]}, start=1)
    assert 'learning rate from 0.001 to 0.1 (2)' in repr(o) and 'learning rate = 0.1: text (0.1,)' in repr(o)
    bundle = o._repr_mimebundle_()
    assert bundle['text/plain'] == repr(o) and bundle['application/vnd.jupyter.widget-view+json']['model_id'] == o.widget.model_id


# ---- layers

def line(ax):
    ax.plot([0, 1], [1, 0], color='#D55E00', lw=4)
    ax.text(.6, .7, 'here')


def plain():
    ax = axes(size=(3, 2))[1]
    ax.plot([0, 1], [0, 1], color='0.3')
    return ax.set(xlabel='x', ylabel='y') and ax


def pixels(png): return np.asarray(Image.open(io.BytesIO(png)).convert('RGBA'), float)


def test_two_layers_make_the_whole():
    whole = plain()
    whole.figure.canvas.draw()
    whole.figure.set_layout_engine('none')
    whole.set_autoscale_on(False)
    line(whole)
    file = io.BytesIO()
    whole.figure.savefig(file, dpi=120, facecolor='white')
    plt.close(whole.figure)
    scene = Scene(plain(), 'A line.', colors=128)
    still, layer = pixels(scene.still), pixels(scene.layer(line))
    alpha = layer[..., 3:]/255
    together = alpha*layer[..., :3] + (1 - alpha)*still[..., :3]
    wanted = pixels(file.getvalue())[..., :3]
    assert together.shape == wanted.shape
    assert np.abs(together - wanted).mean() < 1 < np.abs(still[..., :3] - wanted).mean()
    assert (alpha == 0).mean() > 0.8


def test_a_layer_leaves_nothing_behind():
    scene = Scene(plain(), 'A line.')
    empty, first = scene.layer(lambda ax: None), scene.layer(line)
    def bad(ax):
        line(ax)
        raise RuntimeError
    with pytest.raises(RuntimeError): scene.layer(bad)
    assert scene.layer(lambda ax: None) == empty and scene.layer(line) == first != empty
    assert (pixels(empty)[..., 3] == 0).all()


def test_layers_lie_over_each_other():
    scene = Scene(plain(), 'What stays.')
    o = explorer(lambda i: Frame(scene.layer(line), f'What moves: {i}.'), {'i': [0, 1]}, scenes=[scene])
    state, key = stored(o)
    stack, = named(state, key, 'StackModel')
    still = next(k for k in named(state, key, 'HTMLModel') if 'What stays.' in state[k]['value'])
    layouts = [state[state[k]['layout'].removeprefix('IPY_MODEL_')] for k in (still, stack)]
    assert all((p['grid_area'], p['width'], p['margin']) == ('1 / 1 / 2 / 2', '100%', '0') for p in layouts)
    boxes = [re.findall(r'<div style="(.*?)"', state[still]['value']), re.findall(r'<div style="(.*?)"', o.html(0))]
    assert boxes[0] == boxes[1] # of one size, whatever the page's width
    for _, html in everywhere(state, key): assert len(Pictures(html).found) == 2


def test_no_figure_stays_open():
    before = plt.get_fignums()
    explorer(lambda i: (plain(), 'a line', ''), {'i': [0, 1]})
    Scene(plain(), 'A line.')
    with pytest.raises(ArgumentError): Frame(plain(), '')
    assert plt.get_fignums() == before


def test_few_colours():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 50, 3), np.uint8))
    png = Frame(noise, 'noise', colors=16).pngs[0]
    assert len(Image.open(io.BytesIO(png)).convert('RGB').getcolors()) <= 16


REFUSED = [
    (lambda: explorer(text, {}), 'what moves -> its values'), (lambda: explorer(text, ['a']), 'what moves -> its values'),
    (lambda: explorer(text, {'': [1, 2]}), 'says what the slider moves'), (lambda: explorer(text, {'a': [1]}), 'at least two values'),
    (lambda: explorer(text, {'a': 'words'}), 'at least two values'), (lambda: explorer(text, {'a': [1, 2]}, start=2), 'a 0 to 1'),
    (lambda: explorer(text, {'a': [1, 2]}, start=(0, 0)), 'index for each slider'), (lambda: explorer(text, {'a': [1, 2], 'b': [1, 2]}, play=True), 'one slider to play'),
    (lambda: explorer([text(1)], {'a': [1, 2]}), 'one picture for each of 2'), (lambda: explorer(lambda i: 'words', {'a': [1, 2]}), 'needs an alt text'),
    (lambda: explorer(lambda i: (square('red'), ''), {'a': [1, 2]}), 'argument alt'), (lambda: explorer(text, {'a': [1, 2]}, scenes=[Scene(plain(), 'A.'), Scene(plain(), 'B.')]), 'each of 2 scenes'),
    (lambda: Frame('a.png', 'a file'), 'argument pictures'), (lambda: Frame([square('red')]*2, 'one'), 'each of 2 pictures'), (lambda: Scene('a', 'b'), 'argument figure')]


@pytest.mark.parametrize('call, match', REFUSED, ids=range(len(REFUSED)))
def test_explorer_refuses(call, match):
    with pytest.raises(ArgumentError, match=match): call()


# ---- rates

def range_test(broke=True):
    "Level 2 up to 0.01, a dip to 1 at 0.1, a rise after it; broken off at 1."
    lrs = np.geomspace(1e-4, 1., 41)
    loss = 2 - np.exp(-np.log10(lrs/0.1)**2/0.1) + 2*np.clip(np.log10(lrs/0.3), 0, None)
    return RangeTest(lrs, np.stack([loss]*3), ['diverged' if broke else 'end']*3, 'SGD', False, beta=0.)


def test_where_a_rate_lies():
    o = rate_explorer(range_test(), {lr: [2., 1.5, 1.] for lr in (1e-3, 0.1, 0.7, 5., 1e-6)})
    said = [re.search(r'It lies (.*?);', o.html(i))[1] for i in range(5)]
    assert said == ['outside of the rates that were tested', 'on the level, before the dip', 'in the dip', 'on the rise, past the dip', 'beyond the rate at which the test came apart']
    assert 'outside' in rate_explorer(range_test(False), {0.1: [2., 1.], 5.: [2., 1.]}).html(1)


def test_what_a_run_did():
    o = rate_explorer(range_test(), {0.01: (torch.tensor([2., 1.]), 0.876), 0.1: ([2., 1.5], 'half as good'), 0.5: [2., np.inf, np.nan]})
    assert '88% right' in o.html(0) and 'half as good' in o.html(1) and 'breaks at step 1' in o.html(2)
    assert 'loss of 1:' in o.html(0)
    asked = []
    rate_explorer(range_test(), lambda lr: asked.append(lr) or [2., 1.], rates=[0.1, 0.01])
    assert asked == [0.01, 0.1]


# ---- descents

GRID = np.linspace(-2, 2, 21)


def test_descent_at_each_step():
    path = np.stack([np.linspace(-2, 0, 30), np.linspace(2, 0, 30)], 1)
    heights = GRID[:, None]**2*3 + GRID**2
    o = descent_explorer({'one': path, 'short': path[:4]}, (GRID, GRID, heights), loss=lambda p: 3*p[1]**2 + p[0]**2)
    for i, t in enumerate(o.values[0]):
        p, q = path[t], path[min(t, 3)]
        assert f'one {3*p[1]**2 + p[0]**2:.3g}, short {3*q[1]**2 + q[0]**2:.3g}' in o.html(i)
    assert (o.values[0][0], o.values[0][-1]) == (0, 29) and len(o.values[0]) <= 17


def test_descent_reads_the_surface():
    tilted = np.add.outer(2*GRID, GRID) # bilinear: exact between the points
    path = np.array([[-1.93, 1.27], [0.11, -0.4], [5., 0.]])
    o = descent_explorer({'p': path}, (GRID, GRID, tilted))
    assert f'p {2*1.27 - 1.93:.3g}' in o.html(0) and f'p {-0.8 + 0.11:.3g}' in o.html(1) and 'p nan' in o.html(2)


def tiny(seed=0):
    with seeded(seed): return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))


@pytest.fixture(scope='module')
def walk():
    "(model, batch, plane through its path)."
    model, path = tiny(), Trajectory()
    with seeded(1): x = torch.randn(60, 3)
    y, opt = x.argmax(1), torch.optim.SGD(model.parameters(), lr=0.3)
    for _ in range(8):
        path.record(model)
        opt.zero_grad(); F.cross_entropy(model(x), y).backward(); opt.step()
    path.record(model)
    model.eval()
    return model, (x, y), loss_plane(model, F.cross_entropy, (x, y), 'pca', trajectory=path, n=7, progress=False), path


def test_descent_on_a_plane_through_a_network(walk):
    _, _, plane, path = walk
    o = descent_explorer({'SGD': path}, plane, labels=('component 1', 'component 2'))
    feet = plane.project(path)
    assert f'({feet[0, 0]:.2g}, {feet[0, 1]:.2g})' in o.html(0) and f'({feet[-1, 0]:.2g}, {feet[-1, 1]:.2g})' in o.html(len(o.values[0]) - 1)


# ---- planes

def test_model_at_a_point(walk):
    model, (x, y), plane, _ = walk
    before = deepcopy(model.state_dict())
    for i, j in ((0, 0), (6, 2), (3, 3)):
        with torch.no_grad(): loss = F.cross_entropy(model_at(plane, model, plane.xs[i], plane.ys[j])(x), y).item()
        assert loss == pytest.approx(plane.loss[j, i], rel=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values()))


def test_plane_at_each_position(walk):
    model, (x, y), plane, _ = walk
    pictures = x[:5].reshape(5, 1, 1, 3)
    o = plane_explorer(plane, model, x[:5], y[:5], names='abc', shown=pictures, stops=3)
    assert o.start == (1, 1)
    for i, j in product(range(3), range(3)):
        with torch.no_grad(): said = model_at(plane, model, o.values[0][i], o.values[1][j])(x[:5]).argmax(1)
        wrong = [f"{'abc'[t]} taken for {'abc'[k]}" for t, k in zip(y[:5], said) if t != k]
        html = o.html(i, j)
        assert f'{plane.loss[3*j, 3*i]:.3g}; {len(wrong)} of 5 wrong' in html
        assert f'says there: {", ".join(wrong) or "all right"}.' in html
    other = plane_explorer(plane, model, x[:5], y[:5], shown=pictures, stops=2, predict=lambda m, x: (y[:5] + 1) % 3)
    assert '5 of 5 wrong' in other.html(0, 1)


# ---- shapes

def net(n=16): return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(n, 5))


def test_shapes_step_by_step():
    o = shape_explorer(trace_shapes(net(), torch.zeros(2, 1, 4, 4)))
    assert o.values[0] == ['0', '1', '2', '3']
    for i, words in enumerate(['channels 1 → 4', 'height 4 → 2, width 4 → 2', '4 axes become 2', 'features 16 → 5']): assert words in o.html(i)
    bad = shape_explorer(trace_shapes(net(9), torch.zeros(2, 1, 4, 4)))
    assert ['failed' in bad.html(i) for i in range(4)] == [False, False, False, True] and 'in_features=9' in bad.html(3)


def test_shapes_of_other_nets():
    rnn = nn.Sequential(nn.Embedding(9, 4), nn.LSTM(4, 6)) # an output of several tensors
    o = shape_explorer(trace_shapes(rnn, torch.zeros(2, 5, dtype=torch.long)))
    assert 'gave [(2, 5, 6), ' in o.html(1)
    deep = nn.Sequential(net(), nn.Sequential(*[nn.Identity() for _ in range(40)]))
    trace = trace_shapes(deep, torch.zeros(2, 1, 4, 4))
    assert shape_explorer(trace).values[0] == ['0', '1'] and len(shape_explorer(trace, depth=2, most=60).values[0]) == 46


# ---- parameter groups

def test_groups_at_each_position():
    groups = layer_groups(net(), example=torch.zeros(2, 1, 4, 4))
    o = groups_explorer(groups, [0.1, 0.02], factors=(2., 5.))
    assert o.names == ['factor', 'first group trained', 'rate of the head'] and len(groups) == 2
    for i, j, h in product(range(2), range(2), range(2)):
        rates = group_rates((0.1, 0.02)[h], 2, (2., 5.)[i])
        said = [f'{g.name} {r:.2g}' if k >= j else f'{g.name} frozen' for k, (g, r) in enumerate(zip(groups, rates))]
        assert f'Rates: {", ".join(said)}.' in o.html(i, j, h) and f'{2 - j} of 2 groups are trained' in o.html(i, j, h)
    share = groups[1].numel/sum(g.numel for g in groups)
    assert f'{share:.0%} of the parameters; the first of them at 0.1' in o.html(0, 1, 0)


WRONG = [
    (lambda w: groups_explorer(net()), 'argument groups'), (lambda w: groups_explorer(layer_groups(net(), 1)), 'a single one'), (lambda w: groups_explorer(layer_groups(net()), 0.), 'argument lr'), (lambda w: groups_explorer(layer_groups(net()), factors=[2.6]), 'argument factors'),
    (lambda w: rate_explorer(None, {}), 'argument range_test'), (lambda w: rate_explorer(range_test(), {0.1: [1., 2.]}), 'at least two rates'),
    (lambda w: rate_explorer(range_test(), lambda lr: [1., 2.]), 'rates='), (lambda w: rate_explorer(range_test(), {-1.: [1., 2.], 1.: [1., 2.]}), 'above 0'),
    (lambda w: rate_explorer(range_test(), {0.1: [1.], 1.: [1., 2.]}), 'run at 0.1'),
    (lambda w: descent_explorer({}, (GRID, GRID, np.zeros((21, 21)))), 'one to six paths'), (lambda w: descent_explorer({'a': np.zeros((3, 3))}, (GRID, GRID, np.zeros((21, 21)))), "path 'a'"),
    (lambda w: descent_explorer({'a': np.zeros((3, 2))}, (GRID, GRID, np.zeros((20, 21)))), 'argument surface'), (lambda w: descent_explorer({'a': np.zeros((3, 2))}, None), 'argument surface'),
    (lambda w: descent_explorer({'a': np.zeros((3, 2))}, (GRID, GRID, np.ones((21, 21))), most=2), 'argument most'),
    (lambda w: plane_explorer(None, w[0], w[1][0][:3], w[1][1][:3]), 'a LossPlane of this session'), (lambda w: plane_explorer(w[2], nn.Linear(3, 3), w[1][0][:3], w[1][1][:3]), 'other parameters'),
    (lambda w: plane_explorer(w[2], w[0], w[1][0][:3], w[1][1][:2]), '3 images and 2 targets'), (lambda w: plane_explorer(w[2], w[0], *w[1]), 'one to 24 images'),
    (lambda w: plane_explorer(w[2], w[0], w[1][0][:3], w[1][1][:3], stops=1), 'argument stops'),
    (lambda w: shape_explorer(None), 'argument trace'), (lambda w: shape_explorer(trace_shapes(nn.ReLU(), torch.zeros(2))), 'argument trace'),
    (lambda w: shape_explorer(trace_shapes(net(), torch.zeros(2, 1, 4, 4)), most=3), 'depth= or most=')]


@pytest.mark.parametrize('call, match', WRONG, ids=range(len(WRONG)))
def test_widgets_refuse(call, match, walk):
    before = plt.get_fignums()
    with pytest.raises(ArgumentError, match=match): call(walk)
    assert plt.get_fignums() == before


def test_a_plane_from_a_file_is_refused(walk, tmp_path):
    walk[2].save(tmp_path/'plane.npz')
    with pytest.raises(ArgumentError, match='read from a file'): model_at(LossPlane.load(tmp_path/'plane.npz'), walk[0], 0., 0.)


# ---- as the lessons store them

LESSONS = {'10_shapes': ['layer'],
           '20_lr_range_test': ['learning rate'],
           '30_landscape': ['step', 'direction 1', 'direction 2'],
           '40_optimizers': ['learning rate', 'momentum', 'divided, mean kept'],
           '60_param_groups': ['factor', 'first group trained'],
           '80_resizing': ['first size', 'progress'],
           '90_augmentation': ['augmentation', 'strength']}


@pytest.mark.parametrize('name', LESSONS)
def test_explorers_of_a_lesson_move(name):
    nb = json.loads((root/'nbs'/'lessons'/f'{name}.ipynb').read_text(encoding='utf-8'))
    state = {k: v['state'] for k, v in nb['metadata']['widgets']['application/vnd.jupyter.widget-state+json']['state'].items()}
    for s in state.values(): s.setdefault('_model_name', '')
    views = [o['data']['application/vnd.jupyter.widget-view+json'] for c in nb['cells'] for o in c.get('outputs', []) if 'application/vnd.jupyter.widget-view+json' in o.get('data', {})]
    assert not re.search(r'\bwidgets\.\w+Slider|jslink', ''.join(''.join(c['source']) for c in nb['cells'])), 'explorers come from dlpractice.widgets'
    moved = []
    for view in views:
        key = view['model_id']
        sliders = [state[s]['description'] for s in named(state, key, 'SelectionSliderModel')]
        if not sliders: continue
        moved += sliders
        shown = list(everywhere(state, key))
        assert len({html for _, html in shown}) == len(shown) > 3
        for _, html in shown:
            pictures = Pictures(html).found
            assert pictures and all(len(alt) > 10 for alt, _ in pictures)
            for _, png in pictures: assert Image.open(io.BytesIO(png)).size[0] > 200
        assert sum(len(o['value']) for k in inside(state, key) if (o := state[k])['_model_name'] == 'HTMLModel') < 250_000
    assert moved == LESSONS[name]


# ---- schedules

def scheduled_runs():
    from dlpractice.schedules import constant, exponential, one_cycle, restarts, triangular
    rise = lambda end: [[end*(1 - 0.7**k) + 0.01*s for k in range(1, 7)] for s in range(3)]
    return {'constant': (constant(), rise(0.7)), 'exponential': (exponential(), rise(0.75)), '1cycle': (one_cycle(), rise(0.9)),
            'restarts': (restarts(cycles=3), rise(0.8)), 'triangular': (triangular(cycles=3), rise(0.85))}


def test_schedule_explorer_shows_the_nearest_run_everywhere():
    from dlpractice.widgets_schedules import cycle_shape, schedule_explorer
    runs = scheduled_runs()
    o = schedule_explorer(runs)
    state, key = stored(o)
    p = np.linspace(0, 1, 201)
    seen_names = set()
    for at, html in everywhere(state, key):
        rises, cycles, end = (v[i] for v, i in zip(o.values, at))
        away = {n: np.sqrt(np.mean((cycle_shape(rises, cycles, end)(p) - f(p))**2)) for n, (f, _) in runs.items()}
        name = min(away, key=away.get)
        seen_names.add(name)
        assert (f'the nearest run is {name}' if away[name] <= 0.2 else f'no run is near; the least far is {name}') in html
        assert f'{np.mean([v[-1] for v in runs[name][1]]):.1%}' in html
        assert f'Your schedule in orange; dashed, {name}.' in [a for a, _ in Pictures(html).found]
    assert seen_names == set(runs) and o.size < 700_000


def test_schedule_explorer_refuses():
    from dlpractice.widgets_schedules import cycle_shape, schedule_explorer
    runs = scheduled_runs()
    for wrong, says in [({}, 'a dictionary'), ({'a': 3}, 'function of progress'), ({'a': (runs['constant'][0], [1.])}, 'two times or more')]:
        with pytest.raises(ArgumentError, match=says): schedule_explorer(wrong)
    with pytest.raises(ArgumentError, match='both make and sliders'): schedule_explorer(runs, make=cycle_shape)
