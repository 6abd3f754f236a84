"What `shaped` and `check_shape` do around the shapes: functions unchanged, no leaks, odd values, and the wording of every message."
import gc
import inspect
import sys
import threading
import typing
import weakref
from collections import namedtuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from dlpractice.errors import ArgumentError, ShapeError
from dlpractice.shape_patterns import read_signature
from dlpractice.shapes import ShapeAssert, check_shape, shaped

MANY = settings(max_examples=400, derandomize=True, deadline=None)
z = torch.zeros


# ---- the decorated function is the function

@st.composite
def functions(draw):
    "A function with random parameters, which returns all of its arguments; and arguments that may fit."
    kinds = sorted(draw(st.lists(st.sampled_from([0, 1, 1, 2, 3, 3, 4]), max_size=6)))
    kinds = [k for i, k in enumerate(kinds) if k not in (2, 4) or k not in kinds[:i]]
    parts, names, default = [], [], False
    for i, k in enumerate(kinds):
        names.append(name := f'v{i}')
        default = k < 2 and (default or draw(st.booleans())) or k == 3 and draw(st.booleans())
        if k == 3 and 2 not in kinds and kinds[i-1:i] != [3]: parts.append('*')
        parts.append(('**' if k == 4 else '*'*(k == 2)) + name + draw(st.sampled_from(['', ': int', ": 'torch.Tensor'"])) + (f' = [{i}]' if default else ''))
        if k == 0 and kinds[i+1:i+2] != [0]: parts.append('/')
    space = dict(torch=torch, __name__='somewhere')
    exec(f"def f({', '.join(parts)}) -> 'torch.Tensor':\n    'What f does.'\n    return ({''.join(n + ', ' for n in names)})", space)
    args = [object() for _ in range(draw(st.integers(0, sum(k in (0, 1) for k in kinds) + 2*(2 in kinds))))]
    kwargs = {n: object() for n, k in zip(names, kinds) if k in (1, 3) and draw(st.booleans())} | ({'more': object()} if 4 in kinds and draw(st.booleans()) else {})
    return space['f'], names, args, kwargs


@MANY
@given(functions(), st.booleans())
def test_the_signature_stays_and_arguments_arrive(drawn, result):
    f, names, args, kwargs = drawn
    g = shaped(', '.join(f'{k}=any' for k in names) + (' -> any' if result or not names else ''))(f)
    for follow in (True, False): assert inspect.signature(g, follow_wrapped=follow) == inspect.signature(f)
    for k in ('__name__', '__qualname__', '__module__', '__doc__', '__annotations__'): assert getattr(g, k) == getattr(f, k)
    assert typing.get_type_hints(g) == typing.get_type_hints(f)
    defaults = lambda h: [*(h.__defaults__ or ()), *(h.__kwdefaults__ or {}).values()]
    assert list(map(id, defaults(g))) == list(map(id, defaults(f)))
    try: expected = f(*args, **kwargs)
    except TypeError:
        with pytest.raises(TypeError): g(*args, **kwargs)
    else:
        flat = lambda o: [id(x) for v in o for x in (v if isinstance(v, tuple) else v.values() if isinstance(v, dict) else [v])]
        assert flat(g(*args, **kwargs)) == flat(expected)


# ---- no leakage between calls

@shaped('n c, any -> n c')
def halves(x, depth):
    "Calls itself with other sizes."
    if not depth: return x
    a, b = (halves(o, depth - 1) for o in x.tensor_split(2))
    return torch.cat([a, b])


@MANY
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5))
def test_sizes_do_not_leak_between_interleaved_and_nested_calls(sizes):
    for n, c in sizes:
        assert halves(z(n, c), 3).shape == (n, c)
        with pytest.raises(ShapeError): halves(z(n, c, 1), 3)
    @shaped('[a b], any -> a b')
    def outer(xs, more):
        if more: assert outer(xs=[z(*more[0])], more=more[1:]).shape == more[0]
        with pytest.raises(ShapeError): outer([z(2, 3), z(3, 2)], [])
        return xs[0]
    assert outer([z(11, 12)], sizes).shape == (11, 12)


def test_sizes_do_not_leak_between_threads():
    @shaped('a b, [b], c? -> a b')
    def f(x, ys, c=None): return z(x.shape[0] + (c is not None), x.shape[1], device='meta')
    wrong, before = [], sys.getswitchinterval()
    def work(n):
        for i in range(200):
            x, ys, bad = z(n, n + 1, device='meta'), [z(n + 1, device='meta')], i % 3 == n % 3
            try: f(x, ys, x[0] if bad else None)
            except ShapeError as e: wrong.append(not bad or f'got ({n + 1}, {n + 1}): axis 0 (a) is {n + 1}; a is {n} in argument x, axis 0' not in str(e))
            else: wrong.append(bad)
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 7)]
        for t in threads: t.start()
        for t in threads: t.join()
    finally: sys.setswitchinterval(before)
    assert len(wrong) == 1200 and not any(wrong)


# ---- every form of message, word for word

def said(f, *args, **kwargs):
    "The text of the exception."
    with pytest.raises((ShapeError, ArgumentError)) as e: f(*args, **kwargs)
    return str(e.value)


@pytest.mark.parametrize('text, message', [
    ('b 2 * h', "expected a name right after '*' at character 5, got ' '. A product is written without spaces: 2*h."),
    ('b c:f33', "expected a dtype, such as f32, i64, bool, float or int at character 4, got 'f'."),
    ('b c:', 'expected a dtype, such as f32, i64, bool, float or int at character 4, got its end.'),
    ('b .. c', "expected a size (a name, a number or {attribute}) at character 2, got '.'."),
    ('... c *d', "expected one run of axes per tensor at character 6, got '*'. Of '...' and '*name' there can be one."),
    ('b, -> c', "expected a shape at character 3, got '-'. A scalar is (); what is not to be checked is any."),
    ('', 'expected a shape at character 0, got its end. A scalar is (); what is not to be checked is any.'),
    ('[b, c]', "expected ']' at character 2, got ','. A list has one pattern, which holds for all of its elements."),
    ('{image: b', "expected a bracket that is closed at character 0, got '{'."),
    ('{a: b, c}', "expected a key and a colon at character 7, got 'c'."),
    ('b (h w', "expected a bracket that is closed at character 2, got '('."),
    ('b c) d', "expected ',', '->' or the end at character 3, got ')'."),
    ('b -> b c ->', "expected ',' or the end at character 9, got '-'."),
    ('(b, c]', "expected ',' or ')' at character 5, got ']'."),
    ('b h+ w', "expected a size (a name, a number or {attribute}) at character 4, got ' '. Within a size there are no spaces: 2*h."),
    ('b 2h', "expected a space, or the end of the axis at character 3, got 'h'."),
])
def test_refusals_of_a_text(text, message):
    at = int(message.split('character ')[1].split(',')[0])
    assert said(read_signature, text, 'f') == f"f, pattern: {message}\n  {text}\n  {' '*at}^"


def two(x, y=None, *rest, n=3): return x


@pytest.mark.parametrize('make, message', [
    (lambda: shaped('b, b, b, n=b, b')(two),
     "two, pattern: expected at most 4 inputs, got 5 in 'b, b, b, n=b, b'."),
    (lambda: shaped('z=b')(two), "two, pattern: expected the name of an argument, got 'z'. There is: n, rest, x, y."),
    (lambda: shaped('b, rset=b')(two),
     "two, pattern: expected the name of an argument, got 'rset'. Did you mean 'rest'?"),
    (lambda: shaped('b h//2')(two),
     'two, pattern: expected h to be known from somewhere, got only h//2 at character 2. Give h an axis of its own, or pass its size.\n  b h//2\n    ^'),
    (lambda: shaped('b (h w)')(two),
     'two, pattern: expected h and w to be known from somewhere, got only (h w) at character 2. Give h and w an axis of its own, or pass its size.\n  b (h w)\n    ^'),
    (lambda: shaped('b {width}')(two),
     'two, pattern: expected {width} to be an argument, or an attribute of self, got a function of x, y, rest, n.'),
    (lambda: check_shape(z(2), 'b {n}'),
     'check_shape, pattern: expected {n} to be an argument, or an attribute of self, got a function of nothing.'),
    (lambda: shaped('b c', c='3')(two), "two, size c: expected a whole number, got '3'."),
    (lambda: check_shape(z(2), 'b', b='2'),
     "check_shape, size b: expected a whole number, got '2'."),
    (lambda: shaped('b', keep='b')(two),
     'two, argument keep: expected a method, whose object keeps the sizes, got a function.'),
    (lambda: shaped('b c', keep='d')(lambda self, x: x),
     "<lambda>, kept size d: expected a name in the pattern, got 'd'. There is: b, c."),
    (lambda: shaped('b')(nn.ReLU()), 'shaped: expected a plain function or method, got ReLU(). Of a module, decorate `forward`; inside nn.Sequential, put a ShapeAssert.'),
    (lambda: check_shape(z(2), 'b -> b'),
     "check_shape, pattern: expected one value, got 'b -> b'. Several values make a tuple in brackets; '->' is for functions."),
    (lambda: ShapeAssert('b 2*'),
     'ShapeAssert, pattern: expected a size (a name, a number or {attribute}) at character 4, got its end.\n  b 2*\n      ^'),
])
def test_refusals_of_a_promise(make, message): assert said(make) == message


@pytest.mark.parametrize('pattern, value, message', [
    ('b c', 'text', ': expected a tensor (b, c), got a str.'),
    ('b c?', [], ': expected a tensor (b, c), got a list of 0.'),
    ('b:f32', None, ': expected a tensor (b,) of f32, got None.'),
    ('(b, c)', z(2), ': expected a tuple, got a Tensor.'),
    ('(b, c)', [z(2)], ': expected a tuple of 2, got a list of 1.'),
    ('[b]', z(2), ': expected a list, got a Tensor.'),
    ('{a: b}', [1], ': expected a dictionary, got a list of 1.'),
    ('{a: b}', {'b': 1}, ": expected a dictionary with the key 'a', got the keys 'b'."),
    ('b c:f32', z(2, 3).double(), ': expected (b, c) of f32, got (2, 3) of float64: the dtype is float64. NumPy makes float64: x.float().'),
    ('b c:float', z(2, 3).long(), ': expected (b, c) of float, got (2, 3) of int64: the dtype is int64. To convert it: x.float().'),
    ('b c:i64', z(2, 3), ': expected (b, c) of i64, got (2, 3) of float32: the dtype is float32. Class labels are whole numbers: x.long().'),
    ('b c:int', z(2, 3).bool(), ': expected (b, c) of int, got (2, 3) of bool: the dtype is bool. To convert it: x.long().'),
    ('()', z(1), ': expected (), got (1,): 1 axis, not 0. There is an axis of size 1 too many: x.squeeze(0).'),
    ('b', z(()), ': expected (b,), got (): 0 axes, not 1.'),
    ('b c', z(2), ': expected (b, c), got (2,): 1 axis, not 2. The first axis is missing, often the batch of one: x.unsqueeze(0).'),
    ('*lead a b', z(2), ': expected (*lead, a, b), got (2,): 1 axis, not at least 2.'),
    ('3 4', z(3, 5), ': expected (3, 4), got (3, 5): axis 1 is 5, not 4.'),
    ('3 4', z(4, 3), ': expected (3, 4), got (4, 3): axis 0 is 4, not 3, and axis 1 is 3, not 4. Axes 0 and 1 look swapped: x.transpose(0, 1).'),
    ('b 2*b', z(2, 5), ': expected (b, 2*b), got (2, 5): axis 1 (2*b) is 5, not 4; b is 2 in argument x, axis 0.'),
    ('b b//2 2*b', z(4, 3, 9), ': expected (b, b//2, 2*b), got (4, 3, 9): axis 1 (b//2) is 3, not 2, and axis 2 (2*b) is 9, not 8; b is 4 in argument x, axis 0.'),
    ('b 5-h', z(2, 7), ': expected (b, 5-h), got (2, 7): axis 1 (5-h) is 7, which no whole h gives.'),
    ('b (h 3)', z(2, 7), ': expected (b, (h 3)), got (2, 7): axis 1 ((h 3)) is 7, which no whole h gives.'),
    ('b c 1', z(2, 3), ': expected (b, c, 1), got (2, 3): 2 axes, not 3. An axis of size 1 got lost, by indexing or squeeze: x.unsqueeze(2).'),
    ('b 4 9', z(2, 36), ': expected (b, 4, 9), got (2, 36): 2 axes, not 3. Axes 1 to 2 look flattened into axis 1, too early or by mistake.'),
    ('b 36', z(2, 4, 9), ': expected (b, 36), got (2, 4, 9): 3 axes, not 2. It is not flattened yet: x.flatten(1, 2).'),
    ('b 9 9 3', z(2, 3, 9, 9), ': expected (b, 9, 9, 3), got (2, 3, 9, 9): axis 1 is 3, not 9, and axis 3 is 9, not 3. Axis 1 looks like the channels: put them last with x.movedim(1, -1).'),
    ('3 b c', z(9, 8, 3), ': expected (3, b, c), got (9, 8, 3): axis 0 is 9, not 3. Axis 2 looks like the channels: put them first with x.movedim(-1, 0).'),
    ('([a b], a)', ([z(2, 3), z(2, 4)], z(3)), '[0][1]: expected (a=2, b=3), got (2, 4): axis 1 (b) is 4; b is 3 in argument x[0][0], axis 1.'),
    ('{x: [a], y: a}', {'x': [z(2)], 'y': z(3)}, "['y']: expected (a=2,), got (3,): axis 0 (a) is 3; a is 2 in argument x['x'][0], axis 0."),
])
def test_faults_of_a_value(pattern, value, message): assert said(check_shape, value, pattern) == 'check_shape, argument x' + message


@pytest.mark.parametrize('pattern, args, message', [
    ('b c, rest=b d', (z(2, 3), None, z(2, 4), z(2, 5)), 'argument rest[1]: expected (b=2, d=4), got (2, 5): axis 1 (d) is 5; d is 4 in argument rest[0], axis 1. Sizes so far: c=3 from argument x.'),
    ('b {n}', (z(2, 4),), 'argument x: expected (b, n=3), got (2, 4): axis 1 (n) is 4; the call has n=3.'),
    ('b c -> c', (z(2, 3),), 'return value: expected (c=3,), got (2, 3): 2 axes, not 1. Sizes so far: b=2 from argument x.'),
    ('b -> (b, b)', (z(2),), 'return value: expected a tuple, got a Tensor.'),
    ('b -> {q: b}', (z(2),), 'return value: expected a dictionary, got a Tensor.'),
    ('b:f32 -> b:i64', (z(2),), 'return value: expected (b=2,) of i64, got (2,) of float32: the dtype is float32. Class labels are whole numbers: result.long().'),
    ('b c, y=b', (z(2, 3), z(4)), 'argument y: expected (b=2,), got (4,): axis 0 (b) is 4; b is 2 in argument x, axis 0. Sizes so far: c=3 from argument x.'),
    ('*l c, *l', (z(2, 3, 4), z(3)), 'argument y: expected (*l=(2, 3),), got (3,): *l is (3,); l is (2, 3) in argument x. Sizes so far: c=4 from argument x.'),
    ('*l c, *l d -> *l', (z(2, 3, 4),)*2, 'return value: expected (*l=(2, 3),), got (2, 3, 4): *l is (2, 3, 4); l is (2, 3) in argument x. Sizes so far: c=4 from argument x; d=4 from argument y.'),
    ('a b, a b', (z(2, 3), z(4, 5)), 'argument y: expected (a=2, b=3), got (4, 5): axis 0 (a) is 4; a is 2 in argument x, axis 0, and axis 1 (b) is 5; b is 3 in argument x, axis 1.'),
    ('a b c, (a b) c', (z(2, 3, 4),)*2, 'argument y: expected ((a b)=6, c=4), got (2, 3, 4): 3 axes, not 2. It is not flattened yet: y.flatten(0, 1).'),
    ('a b c, a b c', (z(2, 3, 4), z(2, 12)), 'argument y: expected (a=2, b=3, c=4), got (2, 12): 2 axes, not 3. Axes 1 to 2 look flattened into axis 1, too early or by mistake.'),
    ('b b c', (z(2, 3, 4),), 'argument x: expected (b, b, c), got (2, 3, 4): axis 1 (b) is 3; b is 2 in argument x, axis 0.'),
])
def test_faults_of_a_call(pattern, args, message): assert said(shaped(pattern)(two), *args) == 'two, ' + message


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.n, self.word, self.config = 3, 'x', nn.Linear(3, 4)
        self.inner = nn.ModuleList([ShapeAssert('b 7', b=2)])

    @shaped('b {n}+1 -> b {config.in_features}')
    def forward(self, x): return x

    @shaped('b {word}')
    def worded(self, x): return x

    @shaped('b c, d -> c d', keep='c d')
    def kept(self, x, y): return z(x.shape[1], len(y))

    def deep(self, x): return self.inner[0](x)


def test_faults_of_a_layer():
    head = Head()
    head.kept(z(2, 3), z(4))
    assert [said(f, *args) for f, *args in [(head, z(2, 5)), (head, z(2, 4)), (nn.Sequential(nn.ReLU(), head), z(2, 5)), (head.worded, z(2, 2)),
        (head.kept, z(2, 5), z(4)), (head.kept, z(2, 3), z(6)), (head.deep, z(2, 5)), (head.deep, z(3, 7)), (ShapeAssert('b 7'), z(2, 5))]] == [
        'Head.forward, argument x: expected (b, n+1=4), got (2, 5): axis 1 (n+1) is 5, not 4; Head was built with n=3.',
        'Head.forward, return value: expected (b=2, config.in_features=3), got (2, 4): axis 1 (config.in_features) is 4; Head was built with config.in_features=3.',
        'Head.forward (layer 1 of Sequential), argument x: expected (b, n+1=4), got (2, 5): axis 1 (n+1) is 5, not 4; Head was built with n=3.',
        "Head.worded, {word} in the pattern: expected a whole number, got 'x'.",
        'Head.kept, argument x: expected (b, c=3), got (2, 5): axis 1 (c) is 5; c was 3 in the first call. Sizes so far: d=4 from the first call.',
        'Head.kept, argument y: expected (d=4,), got (6,): axis 0 (d) is 6; d was 4 in the first call. Sizes so far: c=3 from the first call; b=2 from argument x.',
        'ShapeAssert (layer inner.0 of Head), argument x: expected (b=2, 7), got (2, 5): axis 1 is 5, not 7.',
        'ShapeAssert (layer inner.0 of Head), argument x: expected (b=2, 7), got (3, 7): axis 0 (b) is 3; b=2 was asked for.',
        'ShapeAssert, argument x: expected (b, 7), got (2, 5): axis 1 is 5, not 7.',
    ]


# ---- unusual, but right

Pair = namedtuple('Pair', 'x y')
class Size(int): pass
class Sized: shape = Size(2), Size(3)

@pytest.mark.parametrize('pattern, value', [
    ('(a b, a)', Pair(z(2, 3), z(2))), ('a b:f32', np.zeros((2, 3), '>f4')), ('a b:float', np.zeros((2, 3), '>f8')), ('a b', Sized()), ('[2*a]', [z(4)]),
    ('([2*a], a)', ([z(4)], z(2))), ('(c?, 2*c)', (None, z(4))), ('{x: b, y: c?}', {'x': z(2)}), ('[b]', []), ('[any?]', [None, 3]), ('b (b t)', z(0, 0)),
    ("{'image id': b, 'a-b': b}", {'image id': z(2), 'a-b': z(2)}), ('n', torch.nn.Parameter(z(2))), ('a b', z(2, 3, device='meta')), ('a b', z(2, 3).to_sparse())])
def test_what_is_right_but_unusual_passes_and_the_function_runs_once(pattern, value):
    ran = []
    @shaped(f'{pattern} -> {pattern}')
    def f(x):
        ran.append(x)
        return x
    assert f(value) is value and len(ran) == 1
    check_shape(value, pattern)


# ---- bugs of their own kind, each once

def test_a_doubtful_argument_does_not_leave_the_result_unchecked():
    @shaped('any, [2*k], m? -> m')
    def f(result, xs, m): return result
    f(z(3), [z(4)], z(3))
    with pytest.raises(ShapeError): f(z(5), [z(4)], z(3))


def test_all_sizes_come_back_where_the_careful_half_decides():
    assert check_shape(([z(4)], z(3)), '([2*k], m?)') == dict(k=2, m=3)
    assert check_shape([z(2, 3, 4)], '[*lead c]') == dict(lead=(2, 3), c=4)


def test_a_zero_behind_a_division_fits_nothing():
    with pytest.raises(ShapeError): check_shape(z(5, 0, 7), 'h w h//w')


@pytest.mark.parametrize('make', [lambda: check_shape(z(2), 'b', c=2), lambda: shaped('b c', d=3)(lambda x: x), lambda: check_shape(z(2, 3, 4), '*n n+1'),
    lambda: check_shape((z(2, 3), z(3)), '(*n, n)'), lambda: check_shape(z(2, 3, 4), '*lead c', lead=2), lambda: check_shape(z(3, 4), '1+_ 2*_'),
    lambda: check_shape(z(2, 3), 'b h', h=3.), lambda: check_shape(z(2, 1), 'b h', h=True), lambda: check_shape(z(2), ['b']), lambda: shaped(lambda x: x),
    lambda: shaped('b {class}')(lambda self, x: x), lambda: shaped('b, x=b c')(lambda x, y=None: x)],
    ids=['size of no name', 'size of no name in shaped', 'run as a number', 'run and name', 'number for a run', '_ in a sum', 'float', 'bool', 'no text', 'no pattern', 'keyword', 'twice'])
def test_what_makes_no_sense_is_refused(make):
    with pytest.raises(ArgumentError): make()


@pytest.mark.parametrize('size', [4, np.int64(4), Size(4)])
def test_attributes_may_be_any_whole_number(size):
    class Head:
        n_in = size
        @shaped('b {n_in}')
        def forward(self, x): return x
    assert Head().forward(z(2, 4)).shape == (2, 4)
    with pytest.raises(ShapeError, match=r'got \(2, 5\): axis 1 \(n_in\) is 5; Head was built with n_in=4'): Head().forward(z(2, 5))


def test_kept_sizes_of_runs_hold_too():
    class Net:
        @shaped('b *lead', keep='lead')
        def forward(self, x): return x
    net = Net()
    net.forward(z(2, 3, 4))
    net.forward(z(5, 3, 4))
    with pytest.raises(ShapeError): net.forward(z(2, 5))


def test_a_fault_keeps_nothing_alive():
    f = shaped('b 3')(lambda x: x)
    x, on = z(2, 4), gc.isenabled()
    seen = weakref.ref(x)
    gc.disable()
    try:
        with pytest.raises(ShapeError) as e: f(x)
        del x, e
        assert seen() is None
    finally:
        if on: gc.enable()


@pytest.mark.parametrize('text', ['b ' + '9'*5000, '('*2000 + 'b', '['*2000 + 'b', '['*25 + 'b' + ']'*25, '+'.join('1'*300), '{²: b}', 'n²', '[any?]', 'b {n.0}'],
                         ids=['long number', 'deep brackets', 'deep lists', 'lists in lists', 'long sum', 'superscript key', 'superscript', 'any?', 'number for an attribute'])
def test_odd_text_is_read_or_refused(text):
    for read in (read_signature, lambda o: check_shape(z(2, 3), o)):
        try: read(text)
        except (ArgumentError, ShapeError): pass


def test_letters_that_python_takes_for_one_do_not_hide_a_fault():
    with pytest.raises((ShapeError, ArgumentError)): check_shape(z(2, 3, 3), '\u00b5 \u03bc \u00b5')


