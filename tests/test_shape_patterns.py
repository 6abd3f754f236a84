"Shape patterns against a slow, obvious reading of their table, and the wording of every message."
import itertools
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings, strategies as st

from dlpractice.errors import ArgumentError, ShapeError
from dlpractice.shape_faults import Match
from dlpractice.shape_patterns import Nest, read_signature
from dlpractice.shapes import check_shape, shaped

MANY = settings(max_examples=400, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
z = torch.zeros

# ---- the reference: patterns as plain tuples, a text for each, and what it admits
# size: ('num', 3), ('name', 'a'), ('self', 'n_in'), (operation, size, size); axis: ('any',), ('rest', name or None), ('size', size)
# value: ('tensor', axes, dtype, optional), ('tuple', items, optional), ('list', item, optional), ('dict', pairs, optional), ('any',)

DTYPES = {'f32': ['float32'], 'float64': ['float64'], 'bf16': ['bfloat16'], 'i64': ['int64'], 'u8': ['uint8'], 'bool': ['bool'], 'c64': ['complex64'],
          'float': ['float16', 'float32', 'float64', 'bfloat16'], 'int': ['int8', 'int16', 'int32', 'int64', 'uint8'], 'complex': ['complex64', 'complex128']}
LIMIT = 200     # the search for a name goes up to here


def size_text(s):
    "Brackets only where the usual rules ask for them; `(h w)` and `h*w` in turn."
    if s[0] in ('num', 'name'): return str(s[1])
    if s[0] == 'self': return f'{{{s[1]}}}'
    if s[0] == 'by': return f'({size_text(s[1])} {size_text(s[2])})'
    left, right = size_text(s[1]), size_text(s[2])
    if s[0] in '*//' and s[1][0] in '+-': left = f'({left})'
    if s[2][0] in '+-' or s[0] in '*//' and s[2][0] in '*//': right = f'({right})'
    return left + s[0] + right


def render(p, space):
    "The text of a value's pattern; `space` gives nothing or a blank."
    s, optional = space, f'{space()}?' if p[-1] is True else ''
    if p[0] == 'any': return 'any'
    if p[0] == 'tensor':
        axes = ['_' if a[0] == 'any' else size_text(a[1]) if a[0] == 'size' else f'*{a[1]}' if a[1] else '...' for a in p[1]]
        return (f' {s()}'.join(axes) if axes else '()') + (f'{s()}:{s()}{p[2]}' if p[2] else '') + optional
    if p[0] == 'tuple': return f'({s()}' + f'{s()},{s()}'.join(render(o, s) for o in p[1]) + (',' if len(p[1]) == 1 else '') + f'{s()}){optional}'
    if p[0] == 'list': return f'[{s()}{render(p[1], s)}{s()}]{optional}'
    return '{' + ', '.join(f'{s()}{k}{s()}:{s()}{render(o, s)}' for k, o in p[1]) + f'{s()}}}{optional}'


def size_value(s, names, attrs):
    "None where there is none."
    if s[0] == 'num': return s[1]
    if s[0] in ('name', 'self'): return (names if s[0] == 'name' else attrs).get(s[1])
    a, b = size_value(s[1], names, attrs), size_value(s[2], names, attrs)
    if a is None or b is None or s[0] == '//' and b == 0: return None
    return {'+': lambda: a + b, '-': lambda: a - b, '*': lambda: a*b, 'by': lambda: a*b, '//': lambda: a//b}[s[0]]()


def names_in(s): return {s[1]} if s[0] == 'name' else set() if s[0] in ('num', 'self') else names_in(s[1]) | names_in(s[2])


def equations(p, value):
    "[(size or name of a run, what it must be)]; None where the value is of the wrong kind."
    if p[0] == 'any' or value is None and p[-1] is True: return []
    if p[0] == 'tensor':
        if not hasattr(value, 'shape') or p[2] and str(value.dtype).split('.')[-1] not in DTYPES[p[2]]: return None
        shape, axes = tuple(value.shape), p[1]
        rests = [i for i, a in enumerate(axes) if a[0] == 'rest']
        if not rests: return [(a[1], n) for a, n in zip(axes, shape) if a[0] == 'size'] if len(axes) == len(shape) else None
        i, behind = rests[0], len(axes) - rests[0] - 1
        if len(shape) < i + behind: return None
        ends = list(zip(axes[:i], shape[:i])) + list(zip(axes[i+1:], shape[len(shape) - behind:]))
        return [(a[1], n) for a, n in ends if a[0] == 'size'] + ([(axes[i][1], shape[i:len(shape) - behind])] if axes[i][1] else [])
    if p[0] == 'dict':
        if not isinstance(value, dict) or any(k not in value and o[-1] is not True for k, o in p[1]): return None
        parts = [equations(o, value[k]) for k, o in p[1] if k in value]
    else:
        if not isinstance(value, (list, tuple)): return None
        items = p[1] if p[0] == 'tuple' else [p[1]]*len(value)
        parts = [equations(o, v) for o, v in zip(items, value)] if len(items) == len(value) else [None]
    return None if None in parts else sum(parts, [])


def solutions(eqs, attrs, given=()):
    "All assignments of whole numbers to the names (and of tuples to the runs) that satisfy all equations."
    if eqs is None: return []
    runs, sizes = {}, dict(given)
    for name, seen in ((k, n) for k, n in eqs if isinstance(k, str)):
        if runs.setdefault(name, seen) != seen: return []
    eqs = [(s, n) for s, n in eqs if not isinstance(s, str)]
    for s, n in eqs:
        if s[0] == 'name' and sizes.setdefault(s[1], n) != n: return []
    free = sorted(set().union(*(names_in(s) for s, _ in eqs)) - set(sizes))
    fit = lambda names, some: all(size_value(s, names, attrs) == n for s, n in some)
    alone = lambda k: [n for n in range(LIMIT) if fit({**sizes, k: n}, [(s, m) for s, m in eqs if names_in(s) - set(sizes) == {k}])]
    tried = ({**sizes, **dict(zip(free, values))} for values in itertools.product(*map(alone, free)))
    return [{**names, **runs} for names in tried if fit(names, eqs)]


# ---- random patterns, values that fit them, and values that do not quite

def make_size(pick, free=True):
    "A size: a and b have an axis of their own for sure; c and d may have, so they come once, and where they can be solved for."
    name, kind = ('name', pick('abccdd' if free else 'ab')), pick(['name']*6 + ['num', 'self', 'sum', 'sum', 'product', 'half', 'by', 'deep'])
    other = pick([('num', 2), ('num', 3), ('num', 5), ('self', 'n_in'), ('name', 'a'), ('name', 'b'), ('self', 'config.width'), ('self', 'size')])
    if kind == 'name': return name
    if kind == 'num': return 'num', pick(range(5))
    if kind == 'self': return 'self', pick(['n_in', 'config.width', 'size'])
    if kind == 'half': return '//', ('name', pick('ab')), pick([('num', 2), ('num', 3), ('name', 'b'), ('self', 'n_in')])
    if kind == 'deep': return pick('+-*'), make_size(pick, False), name
    two = [name, other] if pick([True, False]) else [other, name]
    return pick('+-') if kind == 'sum' else '*' if kind == 'product' else 'by', *two


def make_tensor(pick, optional=True):
    axes = [('any',) if pick(range(8)) == 0 else ('size', make_size(pick)) for _ in range(pick([0, 1, 1, 2, 2, 3]))]
    if pick(range(5)) == 0: axes.insert(pick(range(len(axes) + 1)), ('rest', pick([None, 'lead', 'more'])))
    return 'tensor', tuple(axes), pick([None]*30 + [*DTYPES]), optional and pick(range(5)) == 0


def make_pattern(pick, depth=2):
    kind = pick(['tensor']*9 + ['tuple', 'list', 'list', 'list', 'dict', 'any']) if depth else 'tensor'
    optional = pick(range(5)) == 0
    if kind == 'tensor': return make_tensor(pick)
    if kind == 'any': return ('any',)
    if kind == 'list': return 'list', make_pattern(pick, depth - 1), optional
    items = [make_pattern(pick, depth - 1) for _ in range(pick([1, 2, 3]))]
    return kind, list(zip([pick(['image', "'label'"]), 'x', 'y'], items)) if kind == 'dict' else items, optional


def keys_bare(p):
    "The same pattern with the keys of dictionaries as they are, without quotes."
    if p[0] == 'dict': return 'dict', [(k.strip("'"), keys_bare(o)) for k, o in p[1]], p[2]
    return (p[0], [keys_bare(o) for o in p[1]], p[2]) if p[0] == 'tuple' else (p[0], keys_bare(p[1]), p[2]) if p[0] == 'list' else p


def array(pick, shape, dtype=None):
    "A tensor on the meta device or an array of one element, so that it takes no memory."
    name = pick(DTYPES[dtype] if dtype else ['float32', 'int64'])
    if name != 'bfloat16' and pick(range(4)) == 0: return np.broadcast_to(np.zeros((), name), shape)
    return torch.empty(shape, dtype=getattr(torch, name), device='meta')


def make_value(pick, p, names, attrs):
    "A value that fits, unless a size turns out negative."
    if p[0] == 'any': return pick([None, 3, 'text'])
    if p[-1] is True and pick(range(3)) == 0: return None
    if p[0] == 'tensor':
        shape = []
        for a in p[1]:
            if a[0] == 'rest': shape += names[a[1]] if a[1] else [pick(range(4)) for _ in range(pick(range(3)))]
            else: shape.append(pick(range(4)) if a[0] == 'any' else max(0, size_value(a[1], names, attrs) or 0))
        return array(pick, tuple(shape), p[2])
    if p[0] == 'dict': return {k: make_value(pick, o, names, attrs) for k, o in p[1] if o[-1] is not True or pick(range(3))}
    return pick([list, tuple])(make_value(pick, o, names, attrs) for o in (p[1] if p[0] == 'tuple' else [p[1]]*pick(range(4))))


def broken(pick, v):
    "The value with one small fault, which may be none."
    if isinstance(v, (list, tuple)) and v:
        i = pick(range(len(v)))
        return type(v)([*v[:i], *([] if pick(range(6)) == 0 else [broken(pick, v[i])]), *v[i+1:]])
    if isinstance(v, dict) and v:
        k = pick(sorted(v))
        return {o: broken(pick, x) if o == k else x for o, x in v.items() if o != k or pick(range(6))}
    if not hasattr(v, 'shape') or pick(range(12)) == 0: return pick([None, 3, [], {}, array(pick, (2,))])
    s, how = list(v.shape), pick(['change']*6 + ['drop', 'add', 'swap', 'dtype'])
    i = pick(range(len(s))) if s else 0
    if how == 'dtype': return array(pick, tuple(s), pick(list(DTYPES)))
    if how == 'add': s.insert(i, pick([1, 1, 2]))
    elif s and how == 'change': s[i] = pick([max(0, s[i] - 1), s[i] + 1, s[i] + 2, 1, 7])
    elif s and how == 'drop': s.pop(i)
    elif s: s[i], s[-1] = s[-1], s[i]
    return np.broadcast_to(np.zeros((), v.dtype), s) if isinstance(v, np.ndarray) else torch.empty(s, dtype=v.dtype, device='meta')


@st.composite
def calls(draw):
    "A promise for each parameter, its text, and arguments."
    pick = lambda options: draw(st.sampled_from(list(options)))
    anchor = 'tensor', (('size', ('name', 'a')), ('size', ('name', 'b'))), None, False
    inputs = [make_pattern(pick) for _ in range(pick([0, 1, 2]))]
    inputs.insert(pick(range(len(inputs) + 1)), anchor)
    named = {k: make_pattern(pick) for k in ('rest', 'k') if pick(range(3)) == 0}
    output = [make_pattern(pick) for _ in range(pick([0, 1, 1, 1, 2]))]
    space = lambda: pick(['', '', ' ', '  ', '\n'])
    parts = [render(o, space) for o in inputs] + [f'{k}{space()}={space()}{render(o, space)}' for k, o in named.items()]
    text = f',{space()}'.join(parts) + (f'{space()}->{space()}' + ', '.join(render(o, space) for o in output) if output else '')
    names = {k: pick([0, 1, 2, 2, 3, 3, 4, 5]) for k in 'abcd'} | {k: tuple(pick(range(4)) for _ in range(pick(range(3)))) for k in ('lead', 'more')}
    attrs = {k: pick(range(1, 5)) for k in ('n_in', 'config.width', 'size')}
    promised = {f'p{i}': keys_bare(o) for i, o in enumerate(inputs)} | {k: keys_bare(o) for k, o in named.items()}
    if 'rest' in promised: promised['rest'] = 'list', promised['rest'], False
    result = None if not output else keys_bare(output[0]) if len(output) == 1 else ('tuple', [keys_bare(o) for o in output], False)
    if result: promised['return'] = result
    values = {k: make_value(pick, p, names, attrs) for k, p in promised.items()}
    for k in pick([[], [pick(sorted(values))], [pick(sorted(values))], [pick(sorted(values)), pick(sorted(values))]]): values[k] = broken(pick, values[k])
    if not isinstance(values.get('rest', ()), (list, tuple)): values['rest'] = (values['rest'],)
    if 'k' in promised and promised['k'] != ('any',): promised['k'] = (*promised['k'][:-1], True)     # its default is None
    return text, promised, values, attrs


def owner_of(attrs): return SimpleNamespace(n_in=attrs['n_in'], config=SimpleNamespace(width=attrs['config.width']))


def outcome(f, *args, **kwargs):
    "The result, or the exception."
    try: return f(*args, **kwargs)
    except ShapeError as e: return e


@MANY
@given(calls())
def test_a_call_passes_if_and_only_if_some_sizes_explain_it(call):
    text, promised, values, attrs = call
    ran = []
    def f(self, p0, p1=0, p2=0, *rest, k=None, size=0):
        ran.append((p0, p1, p2, rest, k))
        return values.get('return')
    try: checked = shaped(text)(f)
    except ArgumentError as e:
        assert 'to be known from somewhere' in str(e)
        return
    eqs = {k: equations(p, tuple(values[k]) if k == 'rest' else values[k]) for k, p in promised.items()}
    joined = lambda keys: None if any(eqs[k] is None for k in keys) else sum((eqs[k] for k in keys), [])
    before, after = bool(solutions(joined([k for k in eqs if k != 'return']), attrs)), bool(solutions(joined(eqs), attrs))
    positional = [values.get(f'p{i}', 0) for i in range(3)]
    got = outcome(checked, owner_of(attrs), *positional, *values.get('rest', ()), k=values.get('k'), size=attrs['size'])
    assert isinstance(got, ShapeError) != (before and after), (text, got)
    assert got is values.get('return') or isinstance(got, ShapeError)
    assert len(ran) == before        # not at all, or once
    if ran: assert all(x is y for x, y in zip(ran[0][:3] + ran[0][3] + ran[0][4:], (*positional, *values.get('rest', ()), values.get('k'))))
    match, s = Match('f', owner=owner_of(attrs), arguments=dict(size=attrs['size'])), read_signature(text)
    todo = [(k or f'p{i}', p) for i, (k, p) in enumerate(s.inputs)] + ([('return', s.output)] if s.output else [])
    todo = [(k, Nest('list', (p,)) if k == 'rest' else p._replace(optional=True) if k == 'k' else p, values[k]) for k, p in todo]
    assert isinstance(outcome(match.take, todo), ShapeError) != after


@MANY
@given(calls())
def test_check_shape_returns_the_sizes(call):
    _, promised, values, attrs = call
    keys = [k for k in promised if re.fullmatch(r'p\d', k)]
    text = render(('tuple', [promised[k] for k in keys], False), lambda: '')
    for k in attrs: text = text.replace(f'{{{k}}}', str(attrs[k]))
    try: read = outcome(check_shape, tuple(values[k] for k in keys), text)
    except ArgumentError as e:
        assert 'to be known from somewhere' in str(e)
        return
    parts = [equations(promised[k], values[k]) for k in keys]
    found = solutions(None if None in parts else sum(parts, []), attrs)
    if not found: assert isinstance(read, ShapeError), text
    else: assert read == {k: v for k, v in found[0].items() if all(o[k] == v for o in found)}, text


@MANY
@given(st.data())
def test_the_one_wrong_axis_is_named(data):
    pick = lambda options: data.draw(st.sampled_from(list(options)))
    names, attrs = dict(a=pick(range(1, 6)), b=pick(range(1, 6)), lead=(2, 2)), {'n_in': 3, 'config.width': 2, 'size': 4}
    axes = [('size', make_size(pick, free=False)) for _ in range(pick([1, 2, 3, 4]))]
    assume(all((size_value(a[1], names, attrs) or -1) >= 0 for a in axes))
    at = pick(range(len(axes)))
    shift = pick([None, 0, len(axes)])
    if shift is not None: axes.insert(shift, ('rest', None))
    p = 'tensor', tuple(axes), None, False
    shape = [n for a in axes for n in ([2, 2] if a[0] == 'rest' else [size_value(a[1], names, attrs)])]
    at += 2*(shift == 0)
    shape[at] = pick([n for n in range(12) if n != shape[at]])
    checked = shaped(f"a b, {render(p, lambda: '')}")(lambda self, x, y, size: None)
    with pytest.raises(ShapeError) as e: checked(owner_of(attrs), z(names['a'], names['b'], device='meta'), torch.empty(shape, device='meta'), 4)
    assert str(e.value).startswith('<lambda>, argument y: expected (')
    assert f"got {tuple(shape)}: " in str(e.value)
    assert re.findall(r'axis (\d+)(?: \(\S.*?\))? is (\d+)', str(e.value)) == [(str(at), str(shape[at]))]


# ---- the reader: whatever the text

SIGNS = st.lists(st.sampled_from([*'bchw_ 0123,:?()[]{}*+-/=.\'"\n²é', '->', '//', '...', 'any', 'f32', '*lead', '{n_in}', '(h w)', 'x=']), max_size=20).map(''.join)

def read_or_refused(text):
    "Nothing but an `ArgumentError`, which points at a character of the text."
    try: read_signature(text, 'f')
    except ArgumentError as e:
        said, shown, caret = str(e).rsplit('\n', 2)
        at = len(caret) - 3
        assert shown == '  ' + re.sub(r'\s', ' ', text) and re.fullmatch(r' *\^', caret) and 0 <= at <= len(text)
        assert re.match(rf'f, pattern: expected .* at character {at}, got ({re.escape(repr(shown[2:][at:at+1]))}|its end)\.', said)
    try: check_shape(z(2, 3), text)
    except (ArgumentError, ShapeError): pass


@settings(MANY, max_examples=1500)
@given(st.one_of(SIGNS, st.text(max_size=15)))
def test_any_text_is_read_or_refused_under_its_character(text): read_or_refused(text)


@MANY
@given(st.lists(st.sampled_from(['a', 'b2', 'class', 'é', 'n__a', 'None', '_a', 's__1', 'self', 'any']), min_size=1, max_size=4, unique=True))
def test_any_word_can_be_a_name(names):
    text, shape = ' '.join(names + names[:1]), [*range(2, len(names) + 2), 2]
    assert check_shape(z(shape, device='meta'), text) == dict(zip(names, shape))
    with pytest.raises(ShapeError): check_shape(z(*shape[:-1], 9, device='meta'), text)
