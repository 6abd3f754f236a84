"Learners' exercises: every one accepts what is right and says what is wrong; the engine survives what learners write; progress is not lost."
import json, os, re, subprocess, sys, textwrap, threading, time
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlpractice.answer_boxes import KINDS, Box
from dlpractice.answers import differ, same, show, size
from dlpractice.errors import ArgumentError
from dlpractice.exercises import LEVELS, Case, Exercise, Lesson, Mistake, Prediction, Question, check, find_lesson, hint, lesson_names, progress, quiz, solution, solutions
from dlpractice.guarded_calls import guarded, own_line
from dlpractice.judging import is_blank, judge, judge_prediction
from dlpractice.progress_store import ProgressStore, home_folder
from dlpractice.quizzes import Choice, Quiz

settings.register_profile('no deadline', deadline=None)
settings.load_profile('no deadline')

lessons = [find_lesson(o) for o in lesson_names() if o != 'tests']
every = [o for lesson in lessons for o in lesson.exercises.values()]
every_lesson = pytest.mark.parametrize('lesson', lessons, ids=lambda o: o.name)
every_exercise = pytest.mark.parametrize('exercise', every, ids=lambda o: o.id)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    "Each test has progress of its own."
    monkeypatch.setenv('DLPRACTICE_HOME', str(tmp_path/'home'))
    return tmp_path/'home'


def verdict(exercise, answer, seed=0): return judge_prediction(exercise, answer) if isinstance(exercise, Prediction) else judge(exercise, answer, seed)


# ---- the exercises

@every_lesson
def test_a_lesson_has_enough(lesson):
    found = list(lesson.exercises.values())
    assert len(found) >= 4 and any(isinstance(o, Prediction) for o in found) and {o.level for o in found} == set(LEVELS)
    assert [o.number for o in found] == list(range(1, len(found) + 1)) and 2 <= len(lesson.questions)
    assert lesson.notebook and sorted(lesson.questions) == list(range(1, len(lesson.questions) + 1))


@every_exercise
def test_an_exercise_is_complete(exercise):
    assert len(exercise.mistakes) >= 3 and len({o.says for o in exercise.mistakes}) == len(exercise.mistakes)
    assert exercise.hints and exercise.why and exercise.task.strip().endswith(('.', '?')) and exercise.name.isidentifier()
    assert all(len(o.says) > 20 for o in exercise.mistakes) and '`' not in exercise.title


@every_exercise
@pytest.mark.parametrize('seed', range(5))
def test_our_solution_passes(exercise, seed):
    found = verdict(exercise, exercise.solved(), seed)
    assert found.kind == 'passed', found


@pytest.mark.parametrize('exercise, mistake', [(o, m) for o in every for m in o.mistakes], ids=lambda o: o.id if hasattr(o, 'id') else re.sub(r'\W+', '-', o.says[:40]))
@pytest.mark.parametrize('seed', range(3))
def test_a_mistake_is_named(exercise, mistake, seed):
    found = verdict(exercise, mistake.answer, seed)
    assert found.kind == 'failed' and mistake.says in found.text, found
    if isinstance(exercise, Exercise): assert [k for k, _ in found.rows] == ['input', 'expected', 'got'] and len(found.text) == 2


@every_exercise
def test_solution_is_shown_as_it_is_run(exercise):
    box = solution(exercise.id)
    assert exercise.solution in dict(box.rows).values() and exercise.why in box.text
    assert ProgressStore().read()[exercise.id] == {'seen': True}


@every_exercise
@pytest.mark.parametrize('answer', [..., None, lambda *a: None, lambda *a: ...], ids=['dots', 'None', 'nothing back', 'dots back'])
def test_a_gap_is_no_failure(exercise, answer):
    box = check(exercise.id, answer)
    assert box.kind == 'empty' and exercise.task in box.text and exercise.name in box.text[1] and not ProgressStore().read()


@every_exercise
@pytest.mark.parametrize('answer', [3.5, 'shape', object(), [1, 'a'], {}, torch.zeros(2), int, lambda: 1, float('nan'), True])
def test_anything_gets_an_answer(exercise, answer):
    box = check(exercise.id, answer)
    assert box.kind == 'failed' and box.text, box


@every_lesson
def test_the_lesson_asks_for_all_of_them(lesson):
    from conftest import root
    nb = json.loads((root/'nbs'/lesson.notebook).read_text(encoding='utf-8'))
    code = {''.join(c['source']): c for c in nb['cells'] if c['cell_type'] == 'code'}
    for o in lesson.exercises.values():
        cell = next(c for text, c in code.items() if f"check('{o.id}', {o.name})" in text)
        shown = [x for out in cell['outputs'] for x in out.get('data', {})]
        assert 'text/html' in shown and '...' in ''.join(cell['source']) and KINDS['empty'][1] in str(cell['outputs']), 'the gap is not empty, or was not executed'
    assert any('#| echo: false' in o and f"quiz('{lesson.name}')" in o and f"solutions('{lesson.name}')" in o for o in code)


def variants():
    "Other ways to be wrong, or right, than those that are written beside the exercises: (id, answer, words of the message; none: it is right)."
    def loop_wrong(x):
        y = x.clone()
        for i in range(x.shape[-1]): y[..., i] -= x[..., :i+1].mean(-1)
        return y
    def broadcast(x): return torch.subtract(x, x.sum(-1)/x.shape[-1])
    def one_short(shape, pattern): return {k: n for k, n in zip(pattern.split(), shape)}
    def to_array(x): return (x - x.mean(-1, keepdim=True)).numpy()
    yield 'shapes/2', broadcast, 'The mean lost its axis'
    yield 'shapes/2', loop_wrong, 'numbers'
    yield 'shapes/2', to_array, 'gives an array, not a tensor'
    yield 'shapes/2', lambda x: (x - x.mean(-1, keepdim=True))[0], 'The shape is'
    yield 'shapes/2', lambda x: torch.nn.functional.normalize(x), 'numbers'
    yield 'shapes/2', lambda x: (x - x.mean(-1, keepdim=True)).int(), 'whole numbers'
    yield 'shapes/2', lambda x: torch.nn.functional.layer_norm(x, x.shape[-1:]), 'numbers'
    yield 'shapes/2', lambda x: x - torch.einsum('...i->...', x)[..., None]/x.size(-1), None
    yield 'shapes/3', 'batch h t d, batch h s d, batch h s e, mask=batch 1 t s -> batch h t e', None
    yield 'shapes/3', 'b h t d, b h s d, b h s e, mask=b 1 s t -> b h t e', 'refuses a right call'
    yield 'shapes/3', '*lead t d, *lead s d, *lead s e, mask=... -> *lead t e', 'lets a wrong call pass'
    yield 'shapes/3', 'b h t d, b h s d, b h s e, b 1 t s?, -> b h t e', 'raises an exception'
    yield 'shapes/4', lambda: torch.nn.Sequential(torch.nn.Upsample((32, 32)), find_lesson('shapes').exercises[4].names['ten_layers']()), None
    yield 'shapes/4', lambda: 7, 'It gives no net'
    yield 'shapes/4', lambda: torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 11)), '11'
    yield 'shapes/5', one_short, 'does not fit the pattern, and no `ValueError` says so'
    yield 'shapes/1', 1601, 'Off by +1'
    yield 'shapes/1', (1, 1600), 'should be a number'


@pytest.mark.parametrize('id, answer, words', list(variants()), ids=lambda o: o[:30] if isinstance(o, str) else None)
def test_other_answers(id, answer, words):
    box = check(id, answer)
    assert (box.kind == 'passed') if words is None else (box.kind == 'failed' and words in str(box)), box


# ---- an exercise of our own, for the engine

def slow_max(x):
    best = -1e9
    for v in x.tolist(): best = v if v > best else best
    return torch.tensor(best)


lesson = Lesson('tests', 'For the tests')
lesson.add(Exercise(1, 'largest & <b>', 'largest', 'Write `largest(x)`.', 'easy', cases=lambda: [(torch.randn(n),) for n in (9, 1, 5, 3)], oracle=slow_max,
    solution='def largest(x): return x.max()', why='So.', hints=('first hint', 'second hint'), mistakes=(Mistake(lambda x: x.min(), 'This is the smallest of them.'),), seconds=0.5))
lesson.add(Prediction(2, 'steps', 'steps', 'How many?', lambda: 40., 'Because.', ('think',), (), within=0.1))
lesson.add(Prediction(3, 'a shape', 'shape', 'Which?', lambda: (2, 3), 'Because.', ('think',), ()))


def test_smallest_failing_input():
    box = check('tests/1', lambda x: x[0] if len(x) < 4 else x.max())
    assert box.rows[0] == ('input', show(max((c for c in [judge_input(box)]), key=len))) and len(re.findall(r'-?\d\.\d+', box.rows[0][1])) == 3


def judge_input(box): return torch.tensor([float(o) for o in re.findall(r'-?\d\.\d+', box.rows[0][1])])


@pytest.mark.parametrize('stubborn', [False, True])
def test_endless_loop(stubborn):
    def forever(x):
        while True:
            try: time.sleep(0.001)
            except:
                if not stubborn: raise
    start = time.monotonic()
    box = check('tests/1', forever)
    assert box.kind == 'failed' and 'does not come to an end within 0.5 seconds' in str(box) and 'of forever' in str(box) and time.monotonic() - start < 8
    assert check('tests/1', torch.max).kind == 'passed' and sys.gettrace() is None


def test_endless_loop_in_a_thread():
    found = []
    def forever(x):
        while True: x = x + 1
    t = threading.Thread(target=lambda: found.append(check('tests/1', forever)))
    t.start()
    t.join(20)
    assert found and 'does not come to an end' in str(found[0])


def test_a_slow_answer_is_told_apart_from_an_endless_one():
    def slow(x):
        time.sleep(0.3)
        return x.max()
    assert check('tests/1', slow).kind == 'failed'


@pytest.mark.skipif(os.name == 'nt', reason='no timer signals')
def test_alarm_of_somebody_else_comes_back():
    import signal
    rang = []
    old = signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.4)
        assert guarded(lambda: 5, seconds=5).value == 5 and not rang
        time.sleep(0.6)
        assert rang
    finally: signal.signal(signal.SIGALRM, old)


@given(st.floats(0.001, 0.03))
@settings(max_examples=25)
def test_nothing_rings_late(seconds):
    "A call that ends about when its time is up: either way, nothing is raised afterwards."
    def busy():
        end = time.monotonic() + 0.015
        while time.monotonic() < end: pass
        return 1
    out = guarded(busy, seconds=seconds)
    for _ in range(20000): pass
    assert out.late or out.value == 1


def test_own_line_of_an_exception():
    def largest(x):
        y = x + 1
        return torch.cat([y, None])
    box = check('tests/1', largest)
    assert 'It raises an exception.' in box.text and 'TypeError' in str(box) and 'of largest: return torch.cat([y, None])' in str(box) and 'expected: tensor(' in str(box)


def test_own_line_in_a_notebook_cell():
    from IPython.core.interactiveshell import InteractiveShell
    shell = InteractiveShell.instance()
    result = shell.run_cell('from dlpractice.exercises import check\ndef largest(x):\n    z = 1\n    return x.biggest()')
    assert result.success
    box = check('tests/1', shell.user_ns['largest'])
    assert 'line 4 of largest: return x.biggest()' in str(box)
    InteractiveShell.clear_instance()


@pytest.mark.parametrize('error', [SystemExit('bye'), GeneratorExit(), RecursionError(), StopIteration(), MemoryError()], ids=lambda o: type(o).__name__)
def test_whatever_is_raised(error):
    def raises(x): raise error
    box = check('tests/1', raises)
    assert type(error).__name__ in str(box)


def test_an_interrupt_goes_through():
    def interrupted(x): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): check('tests/1', interrupted)
    assert check('tests/1', torch.max).kind == 'passed'


def test_deep_recursion():
    def deep(x): return deep(x)
    assert 'RecursionError' in str(check('tests/1', deep))


def test_printing(capsys):
    def loud(x):
        print('<b>seen</b>', len(x))
        return x.max()
    box = check('tests/1', loud)
    assert box.kind == 'passed' and ('printed', '<b>seen</b> 1') in box.rows and '<b>seen' not in box._repr_html_()
    def very_loud(x):
        while True: print('x'*100)
    assert len(str(check('tests/1', very_loud))) < 3000
    capsys.readouterr()
    print('after')
    assert capsys.readouterr().out == 'after\n'


def test_changed_argument():
    def sorts(x): return x.copy_(x.sort().values)[-1]
    box = check('tests/1', sorts)
    assert box.kind == 'failed' and 'changes its argument' in str(box) and 'unchanged' in str(box)


def test_a_changed_argument_spoils_nothing_for_the_oracle():
    def zeroes(x): return x.zero_().max()
    assert 'expected: tensor(' in str(check('tests/1', zeroes)) and 'expected: tensor(0.)' not in str(check('tests/1', zeroes))


def test_global_random_state_is_left():
    torch.manual_seed(5)
    want = torch.rand(1)
    torch.manual_seed(5)
    check('tests/1', lambda x: (torch.rand(9), x.max())[1])
    assert torch.equal(torch.rand(1), want)


def test_random_inputs_differ_from_try_to_try():
    wrong = lambda x: x.mean() + 100
    inputs = {check('tests/1', wrong).rows[0][1] for _ in range(3)}
    assert len(inputs) == 3


class Strict(HTMLParser):
    "Every tag that is opened is closed, in order."
    def __init__(self, text):
        super().__init__()
        self.open, self.tags = [], []
        self.feed(text)
        assert not self.open, self.open
    def handle_starttag(self, tag, attrs): self.open.append(tag); self.tags.append(tag)
    def handle_endtag(self, tag): assert self.open.pop() == tag


nasty = st.text(alphabet='<>&"\'`/abc \n', max_size=40)


@given(st.sampled_from(sorted(KINDS)), nasty, st.lists(nasty, max_size=3), st.lists(st.tuples(nasty, nasty), max_size=3))
def test_box_escapes(kind, title, text, rows):
    box = Box(kind, title, tuple(text), tuple(rows))
    parsed = Strict(box._repr_html_())
    assert set(parsed.tags) <= {'div', 'p', 'span', 'pre', 'code'} and KINDS[kind][1] in str(box) and KINDS[kind][1] in box._repr_html_()


def test_values_are_escaped():
    class Odd:
        def __repr__(self): return '<img src=x onerror=alert(1)>'
    assert '<img' not in check('tests/1', lambda x: Odd())._repr_html_() and '&amp; &lt;b&gt;' in check('tests/1', 3)._repr_html_()


def contrast(a, b):
    "WCAG contrast of two colours."
    def light(c):
        v = [int(c[i:i+2], 16)/255 for i in (1, 3, 5)]
        return sum(w*(x/12.92 if x <= 0.03928 else ((x + 0.055)/1.055)**2.4) for w, x in zip((0.2126, 0.7152, 0.0722), v))
    x, y = sorted((light(a), light(b)))
    return (y + 0.05)/(x + 0.05)


def test_edges_can_be_seen_in_light_and_dark():
    for _, word, colour in KINDS.values():
        assert word and contrast(colour, '#ffffff') >= 3 and contrast(colour, '#121212') >= 3 and contrast(colour, '#222222') >= 3, (word, colour)
    assert len({sign for sign, _, _ in KINDS.values()}) == len({word for _, word, _ in KINDS.values()}) == len(KINDS)


def test_hints_after_two_failures():
    wrong = lambda x: x.min()
    boxes = [check('tests/1', wrong) for _ in range(4)]
    assert ['hint' in str(o) for o in boxes] == [False, True, True, True]
    assert 'first hint' in str(boxes[1]) and 'second hint' in str(boxes[2]) and "solution('tests/1')" in str(boxes[3])
    assert check('tests/1', torch.max).kind == 'passed' and 'hint' not in str(check('tests/1', wrong))


def test_hint_goes_on():
    said = [str(hint('tests/1')) for _ in range(3)]
    assert 'first hint' in said[0] and 'second hint' in said[1] and 'no more hints' in said[2]
    assert 'tries' not in ProgressStore().read()['tests/1']


@pytest.mark.parametrize('id', ['tests/9', 'tests', 'shapes/x', 'shape/1', '', 'no/1', '../x/1', 3])
@pytest.mark.parametrize('f', [lambda i: check(i, 1), hint, solution], ids=['check', 'hint', 'solution'])
def test_unknown_id(f, id):
    with pytest.raises(ArgumentError, match='expected (a lesson|the id)'): f(id)


def test_a_fault_of_ours_is_said_to_be_ours(monkeypatch):
    monkeypatch.setattr(lesson.exercises[1], 'oracle', lambda x: 1/0)
    box = check('tests/1', torch.max)
    assert box.kind == 'broken' and 'ZeroDivisionError' in str(box) and 'fault of dlpractice' in str(box) and not ProgressStore().read()


# ---- predictions, quizzes

@pytest.mark.parametrize('answer, kind, words', [(40, 'passed', ''), (43.9, 'passed', ''), (np.float32(37), 'passed', ''), (torch.tensor(41), 'passed', ''), (80, 'failed', '2 times too large'),
    (20, 'failed', '2 times too small'), (45, 'failed', 'Off by +5'), (-40, 'failed', 'Off by -80'), ('40', 'failed', 'should be a number'), (True, 'failed', 'should be a number'), (float('inf'), 'failed', 'should be a number')])
def test_predicted_numbers(answer, kind, words):
    box = check('tests/2', answer)
    assert box.kind == kind and words in str(box) and ('Because.' in str(box) or 'should be' in str(box))


@pytest.mark.parametrize('answer, kind, words', [((2, 3), 'passed', ''), (torch.Size([2, 3]), 'passed', ''), ([2, 3], 'passed', ''), ((2, 4), 'failed', 'axis 1 is 3, not 4'), ((2,), 'failed', 'It has 2 axes, not 1'), (6, 'failed', 'should be a shape')])
def test_predicted_shapes(answer, kind, words):
    box = check('tests/3', answer)
    assert box.kind == kind and words in str(box)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_every_number_gets_a_verdict(said, true):
    p = Prediction(1, 'a', 'a', 'a', lambda: true, 'w', ('h',), (), within=0.05)
    assert judge_prediction(p, said).kind == ('passed' if abs(said - true) <= 0.05*abs(true) else 'failed')


@pytest.mark.parametrize('choices', [(), (Choice('a', 'b', True),), (Choice('a', 'b'), Choice('c', 'd')), (Choice('a', 'b', True), Choice('c', 'd', True)), (Choice('a', 'b', True), Choice('c', ' '))])
def test_bad_questions(choices):
    with pytest.raises(ArgumentError, match='Question 1'): Question(1, 'Which?', choices)


@every_lesson
def test_quiz_forms(lesson, monkeypatch):
    q = quiz(lesson.name)
    Strict(q._repr_html_())
    for o in q.questions:
        for c in o.choices: assert c.why in q.markdown() and c.text in q.markdown() and o.text in repr(q)
    boxes = q.widget().children
    for o, b in zip(q.questions, boxes):
        for i, c in enumerate(o.choices):
            b.children[1].value = i
            assert ('Right.' if c.right else 'No.') in b.children[2].value
    monkeypatch.setenv('DLPRACTICE_STATIC', '1')
    assert 'application/vnd.jupyter.widget-view+json' not in q._repr_mimebundle_()


@every_lesson
def test_quiz_and_solutions_are_markup_that_the_site_knows(lesson):
    from conftest import root
    sys.path.insert(0, str(root/'docs'))
    import markup
    from test_repo import faults
    for text in (quiz(lesson.name).markdown(), solutions(lesson.name)._repr_markdown_()):
        assert not faults(text, root/'nbs'/'lessons'/'10_shapes.ipynb')
        cell = {'cell_type': 'code', 'metadata': {}, 'source': '#| echo: false\nx', 'outputs': [{'output_type': 'display_data', 'metadata': {}, 'data': {'text/markdown': text, 'text/html': 'no'}}]}
        nb, wrong = markup.convert({'cells': [cell], 'metadata': {}})
        assert not wrong and nb['cells'][0]['cell_type'] == 'markdown' and nb['cells'][0]['source'].count(':::{dropdown}') == text.count('::: {.callout')
    Strict(solutions(lesson.name)._repr_html_())


# ---- progress

def test_progress_is_told():
    check('tests/1', torch.max)
    check('tests/2', 80)
    text = str(progress('tests'))
    assert 'For the tests: 1 of 3' in text and re.search(r'✔ +tests/1 .* passed \d{4}-\d\d-\d\d, 1 try', text) and re.search(r'… +tests/2 .* tried, 1 try', text)
    Strict(progress('tests')._repr_html_())
    assert progress('tests', reset=True).count(lesson) == 0 and progress('tests').count(lesson) == 0
    with pytest.raises(ArgumentError, match='expected a lesson'): progress(reset=True)


def test_a_pass_stays_a_pass(home):
    check('tests/1', torch.max)
    check('tests/1', torch.min)
    assert 'passed' in json.loads((home/'progress.json').read_text())['exercises']['tests/1']


@pytest.mark.parametrize('content', ['', '{', '[]', '{"version": 0}', '{"version": 1, "exercises": {"a/1": {"tries": "3"}}}', 'null', '\udcff', '{"version": 1, "exercises": [' + '['*100000])
def test_damaged_file_is_set_aside(home, content):
    home.mkdir()
    (home/'progress.json').write_bytes(content.encode('utf-8', 'surrogateescape'))
    (home/'progress-damaged-1.json').write_text('an older one')
    box = check('tests/1', torch.max)
    assert box.kind == 'passed' and 'was damaged' in str(box) and 'progress-damaged-2.json' in str(box)
    assert (home/'progress-damaged-2.json').read_bytes() == content.encode('utf-8', 'surrogateescape') and (home/'progress-damaged-1.json').read_text() == 'an older one'
    assert 'damaged' not in str(check('tests/1', torch.max)) and ProgressStore().read()['tests/1']['tries'] == 2


def test_newer_file_is_left_alone(home):
    home.mkdir()
    (home/'progress.json').write_text('{"version": 2, "exercises": []}')
    assert 'newer dlpractice' in str(check('tests/1', torch.min)) and 'first hint' in str(check('tests/1', torch.min))
    assert 'newer dlpractice' in str(progress('tests')) and 'newer' in str(progress('tests', reset=True))
    assert (home/'progress.json').read_text() == '{"version": 2, "exercises": []}' and not list(home.glob('*damaged*'))


def test_unknown_fields_and_exercises_are_kept(home):
    home.mkdir()
    (home/'progress.json').write_text('{"version": 1, "who": "me", "exercises": {"gone/1": {"passed": "2030-01-01", "stars": 3}, "tests/1": {"stars": 2}}}')
    check('tests/1', torch.max)
    d = json.loads((home/'progress.json').read_text())
    assert d['who'] == 'me' and d['exercises']['gone/1'] == {'passed': '2030-01-01', 'stars': 3} and d['exercises']['tests/1']['stars'] == 2


@pytest.mark.parametrize('broken', ['folder is a file', 'no space'])
def test_a_lesson_goes_on_when_nothing_can_be_stored(home, monkeypatch, broken):
    if broken == 'no space':
        check('tests/1', torch.max)
        def full(*a): raise OSError(28, 'No space left on device')
        monkeypatch.setattr(os, 'replace', full)
    else: home.write_text('')
    before = (home/'progress.json').read_bytes() if home.is_dir() else None
    assert 'for this session only' in str(check('tests/1', torch.min)) and 'first hint' in str(check('tests/1', torch.min))
    assert before is None or ((home/'progress.json').read_bytes() == before and not list(home.glob('*.part')))


ids = st.sampled_from(['a/1', 'a/2', 'b/1', 'ab/1'])


@given(st.lists(st.one_of(ids, st.sampled_from(['a', 'b'])), max_size=15))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_store_counts_like_a_dict(tmp_path, steps):
    path = tmp_path/f'{abs(hash(tuple(steps)))}-{time.monotonic_ns()}.json'
    counts = {}
    for o in steps:
        if '/' in o:
            ProgressStore(path).update(o, lambda r: r.update(tries=r.get('tries', 0) + 1))
            counts[o] = counts.get(o, 0) + 1
        else:
            ProgressStore(path).reset(o)
            counts = {k: n for k, n in counts.items() if not k.startswith(f'{o}/')}
    assert {k: r['tries'] for k, r in ProgressStore(path).read().items()} == counts and not list(tmp_path.glob('*.part'))


def test_two_processes(tmp_path):
    code = textwrap.dedent('''
        import sys
        from dlpractice.progress_store import ProgressStore
        for i in range(60):
            s = ProgressStore(sys.argv[1])
            s.update('a/1', lambda r: r.update(tries=r.get('tries', 0) + 1))
            assert not s.note, s.note''')
    running = [subprocess.Popen([sys.executable, '-c', code, str(tmp_path/'p.json')]) for _ in range(2)]
    while any(p.poll() is None for p in running):    # a reader never sees half a file
        if (tmp_path/'p.json').exists(): json.loads((tmp_path/'p.json').read_text())
    assert [p.returncode for p in running] == [0, 0] and ProgressStore(tmp_path/'p.json').read()['a/1']['tries'] == 120


def test_killed_while_writing(tmp_path):
    path = tmp_path/'p.json'
    ProgressStore(path).update('a/1', lambda r: r.update(tries=1))
    code = 'import os, sys\nfrom dlpractice.progress_store import ProgressStore\nos.replace = lambda *a: os._exit(9)\nProgressStore(sys.argv[1]).update("a/1", lambda r: r.update(tries=2))'
    assert subprocess.run([sys.executable, '-c', code, str(path)]).returncode == 9
    store = ProgressStore(path)
    assert store.read() == {'a/1': {'tries': 1}} and store.update('a/1', lambda r: r.update(tries=3)) == {'tries': 3} and not store.note


def test_home_folder(monkeypatch, tmp_path):
    assert home_folder() == tmp_path/'home'
    monkeypatch.delenv('DLPRACTICE_HOME')
    monkeypatch.setenv('XDG_DATA_HOME', str(tmp_path/'data'))
    assert home_folder() == tmp_path/'data'/'dlpractice'


def test_command_line(home, capsys):
    from dlpractice.cli import main
    cli = [sys.executable, '-c', 'import sys; from dlpractice.cli import main; sys.exit(main())', 'progress']
    run = lambda *a: subprocess.run([*cli, *a], capture_output=True, text=True, encoding='utf-8', env=os.environ | {'PYTHONIOENCODING': 'utf-8'})
    ProgressStore().update('shapes/2', lambda r: r.update(tries=3, passed='2030-01-02'))
    assert re.search(r'✔ +shapes/2 .* passed 2030-01-02, 3 tries', run().stdout)
    assert 'Shape-asserting layers: 0 of 5' in run('--reset', 'shapes').stdout and not ProgressStore().read()
    assert main(['progress', '--reset', 'shapez']) == 2 and "Did you mean 'shapes'" in capsys.readouterr().err
    assert main(['progress', 'shapes', '--reset', 'landscape']) == 2 and 'expected one lesson' in capsys.readouterr().err


def test_in_a_script_it_is_printed():
    code = 'from dlpractice import check\ncheck("shapes/2", lambda x: x - x.mean())'
    said = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, encoding='utf-8', env=os.environ | {'PYTHONIOENCODING': 'utf-8'}).stdout
    assert said.startswith('✘ Not yet: shapes/2') and 'one mean, that of the whole tensor' in said


def test_importing_exercises_imports_no_lesson():
    code = 'import sys, dlpractice.exercises; assert not [o for o in sys.modules if o.startswith("dlpractice.exercises_") or o in ("dlpractice.shapes", "ipywidgets", "IPython")]'
    subprocess.run([sys.executable, '-c', code], check=True)


# ---- comparing

values = st.recursive(st.one_of(st.integers(-5, 5), st.floats(-2, 2), st.text(max_size=3), st.none(), st.booleans()), lambda o: st.one_of(st.lists(o, max_size=3), st.dictionaries(st.text(max_size=2), o, max_size=3)), max_leaves=6)


@given(values, values)
def test_differ_and_same_on_anything(a, b):
    from copy import deepcopy
    assert differ(a, deepcopy(a)) == '' and same(a, deepcopy(a))
    assert isinstance(differ(a, b), str) and isinstance(show(a), str) and size(a) >= 0
    if a != b and differ(a, b) == '': assert np.allclose(np.array(_flat(a), float), np.array(_flat(b), float), rtol=1e-3, atol=1e-4)


def _flat(o):
    if isinstance(o, dict): return [x for k in sorted(o) for x in _flat(o[k])]
    if isinstance(o, (list, tuple)): return [x for e in o for x in _flat(e)]
    return [0. if o is None or isinstance(o, str) else float(o)]


@given(st.lists(st.integers(0, 3), max_size=3), st.integers(0, 10), st.sampled_from([torch.float32, torch.int64, torch.bool]))
def test_differ_on_tensors(shape, seed, dtype):
    x = (torch.rand(shape, generator=torch.Generator().manual_seed(seed))*9).to(dtype)
    assert differ(x, x.clone()) == '' and same(x, x.clone())
    if x.numel() and dtype != torch.bool: assert differ(x, x + 1) and not same(x, x + 1)
    assert differ(x, x[None]) and differ(x, None)
