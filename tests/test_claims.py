"Claims: intervals against SciPy and by simulation, verdicts, runs that survive, stored results, the board."
import json, math, os, re, shutil, signal, subprocess, sys, time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

import claims_here
from conftest import call, cores, root, workers
from dlpractice import claims
from dlpractice.claim_board import Board, board_rows, strength
from dlpractice.claim_list import LESSONS, RULES
from dlpractice.claims import Result, bounds, beyond_margin, claim, claim_code, find_claim, judge_trials, overall, results_folder, run, says
from dlpractice.errors import ArgumentError, DataError, TrainingError
from dlpractice.intervals import bca_interval, bounds_interval, interval, judge, seeds_needed, t_interval, t_quantile
from dlpractice.rate_sweeps import sweep_points, sweep_rates

coin_1, coin_2 = claims_here.coin_1, claims_here.coin_2
numbers = st.floats(-100, 100).map(lambda v: round(v, 6))
stored = sorted(results_folder().glob('*.json'))


# ---- intervals

@settings(deadline=None)
@given(st.floats(0.001, 0.999), st.integers(1, 5000))
def test_t_quantile_is_scipys(p, df): assert t_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-7, abs=1e-8)


@settings(deadline=None)
@given(st.lists(numbers, min_size=2, max_size=19), st.sampled_from([0.8, 0.95, 0.99]))
def test_t_interval_is_scipys(x, level):
    if np.ptp(x) < 1e-3: x = [*x, x[0] + 1]
    ours, theirs = t_interval(x, level), stats.ttest_1samp(x, 0).confidence_interval(level)
    assert ours == pytest.approx(tuple(theirs), rel=1e-6, abs=1e-9)


def test_paired_t_test_agrees():
    "The interval of the differences excludes zero exactly when SciPy's paired test is significant."
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, b = rng.normal(size=8), rng.normal(0.7, size=8)
        lo, hi = t_interval(a - b)
        assert (not lo <= 0 <= hi) == (stats.ttest_rel(a, b).pvalue < 0.05)


@pytest.mark.parametrize('draw', ['normal', 'exponential', 'lognormal'])
@pytest.mark.parametrize('n', [20, 60])
def test_bca_is_scipys(draw, n):
    x = getattr(np.random.default_rng(n), draw)(size=n)
    theirs = stats.bootstrap((x,), np.mean, method='BCa', n_resamples=30_000, rng=np.random.default_rng(1)).confidence_interval
    assert bca_interval(x, resamples=30_000) == pytest.approx(tuple(theirs), abs=0.03*(theirs[1] - theirs[0]))


def coverage(draw, mean, n, times):
    "How often the interval holds the true mean."
    rng = np.random.default_rng(n)
    found = [interval(draw(rng, n)) for _ in range(times)]
    return np.mean([lo <= mean <= hi for lo, hi in found])


def test_coverage_of_student(): assert abs(coverage(lambda r, n: r.normal(1, 2, n), 1, 5, 4000) - 0.95) < 0.014 # 4 standard errors


def test_coverage_of_bca_on_skewed_effects():
    "Not quite 95 % with 25 skewed effects; a bootstrap has no more than the sample to go by. Far from the truth would be a mistake of ours."
    ours = coverage(lambda r, n: r.exponential(1, n), 1, 25, 600)
    assert 0.89 < ours < 0.975


def test_coverage_sees_a_wrong_interval():
    rng = np.random.default_rng(0)
    narrow = np.mean([abs(x.mean()) < 1.96*x.std(ddof=1)/5**0.5 for x in rng.normal(size=(4000, 5))])
    assert narrow < 0.9


# ---- verdicts

kinds = st.sampled_from(['more', 'less', 'equal'])


@settings(deadline=None)
@given(numbers, st.floats(0, 50), st.floats(0.01, 20), st.floats(0, 20), kinds)
def test_a_wider_interval_never_turns_a_verdict(mid, half, margin, more, kind):
    narrow, wide = judge(mid - half, mid + half, margin, kind), judge(mid - half - more, mid + half + more, margin, kind)
    assert wide in (narrow, 'inconclusive')


@settings(deadline=None)
@given(numbers, st.floats(0, 50), numbers)
def test_more_and_less_mirror_each_other(mid, half, margin): assert judge(mid - half, mid + half, margin, 'more') == judge(-mid - half, half - mid, -margin, 'less')


@settings(deadline=None)
@given(st.lists(numbers, min_size=3, max_size=10), numbers.filter(lambda m: abs(m) > 0.01), kinds)
def test_seeds_needed_decides_and_one_less_does_not(x, margin, kind):
    margin = abs(margin) if kind == 'equal' else margin
    n = seeds_needed(x, margin, kind)
    mean, sd = np.mean(x), np.std(x, ddof=1)
    away = abs(abs(mean) - margin) if kind == 'equal' else abs(mean - margin)
    def half(k): return stats.t.ppf(0.975, k - 1)*sd/math.sqrt(k)
    if n is None: assert half(100_000) >= away
    else: assert half(n) <= away*(1 + 1e-6) and (n == 2 or half(n - 1) >= away*(1 - 1e-6))


def test_false_verdicts_are_rare():
    "An effect that sits on the margin is called supported in about 2.5 % of experiments, and refuted as rarely."
    rng = np.random.default_rng(3)
    said = [judge(*interval(rng.normal(0.1, 0.05, 10)), 0.1, 'more') for _ in range(3000)]
    for v in ('supported', 'refuted'): assert abs(np.mean([o == v for o in said]) - 0.025) < 0.012


def test_equivalence_needs_precision_not_absence():
    assert judge(*interval([0.3, -0.3, 0.2, -0.25]), 0.1, 'equal') == 'inconclusive'
    assert judge(*interval([0.01, -0.01, 0.02, 0.]), 0.1, 'equal') == 'supported'


# ---- censoring

ratio = replace(coin_1.claim, effect='log ratio', kind='less', margin=-0.1, worlds=('coin',))


@settings(deadline=None)
@given(st.floats(0.1, 100), st.floats(0.1, 100), st.floats(1, 50))
def test_censoring_only_widens(a, b, limit):
    "The bounds of a censored trial hold its true effect."
    cut = {k: None if v > limit else v for k, v in (('heads', a), ('tails', b))}
    lo, hi = bounds(ratio, dict(**cut, limit=limit))
    assert lo <= math.log(a/b) + 1e-9 and hi >= math.log(a/b) - 1e-9
    assert (lo == hi) == (a <= limit and b <= limit)


def test_censored_arm_decides_only_against_itself():
    "The baseline misses the target: the first arm is at least so much faster. The first arm misses it: nothing supports it."
    fast = [dict(heads=10. + i, tails=None if i % 2 else 30. + i, limit=40.) for i in range(6)]
    judged = judge_trials(ratio, dict(coin=[bounds(ratio, v) for v in fast]))['coin']
    assert (judged['verdict'], judged['censored'], judged['effect'], judged['lo']) == ('supported', 3, None, None)
    lost = [v | dict(heads=None) if i == 0 else v for i, v in enumerate(fast)]
    judged = judge_trials(ratio, dict(coin=[bounds(ratio, v) for v in lost]))['coin']
    assert (judged['verdict'], judged['hi'], judged['needed']) == ('inconclusive', None, None)
    assert judge_trials(ratio, dict(coin=[bounds(ratio, dict(heads=1., tails=None))]*6))['coin']['verdict'] == 'inconclusive' # without a limit


def test_censored_coverage():
    "Times with a baseline that is cut off: the upper end of the interval is beyond the true mean in at least 97.5 % of experiments, but for chance."
    rng, kept = np.random.default_rng(5), 0
    for _ in range(1500):
        a, b = np.exp(rng.normal(2, 0.3, 8)), np.exp(rng.normal(2.5, 0.3, 8))
        kept += bounds_interval([bounds(ratio, dict(heads=x, tails=y if y < 14 else None, limit=14.)) if x < 14 else (math.log(14/y), math.inf) for x, y in zip(a, b)])[1] >= -0.5
    assert kept/1500 > 0.963


def test_a_callable_effect_may_give_bounds_or_nothing():
    for effect, expected in ((lambda v: 1, (1., 1.)), (lambda v: (0.5, None), (0.5, math.inf)), (lambda v: None, (-math.inf, math.inf)), (lambda v: float('nan'), (-math.inf, math.inf))):
        assert bounds(replace(ratio, effect=effect), {}) == expected


# ---- declarations

good = dict(id='coin-9', rule='r', said_in='s', figure='f', margin=0.1, kind='more', arms=('a', 'b'))


@pytest.mark.parametrize('bad, says', [
    (dict(id='coin'), "a family and a number, such as 'lr-1'"), (dict(kind='mor'), "Did you mean 'more'?"), (dict(margin=float('nan')), 'argument margin: expected a number'),
    (dict(kind='equal', margin=0.), 'above 0'), (dict(arms=('a',)), 'argument arms: expected two names'), (dict(effect='ratio'), "'log ratio' or a callable"),
    (dict(worlds=()), 'at least one name'), (dict(seeds=dict(quick=1)), 'a whole number from 2 up'), (dict(seeds=dict(quik=5)), 'a number for each of quick, stored, full'),
    (dict(worlds='glyphs'), 'argument worlds: expected a tuple of names'), (dict(arms='ab'), 'argument arms: expected a tuple of names')])
def test_declaration_is_refused(bad, says):
    def trial(seed, budget, world): pass
    with pytest.raises(ArgumentError, match=re.escape(says)): claim(**{**good, **bad})(trial)
    assert 'coin-9' not in claims._declared


def test_one_trial_for_each_id():
    def other(seed, budget, world): pass
    with pytest.raises(ArgumentError, match='one trial'): claim(**{**good, 'id': 'coin-1'})(other)


def test_unknown_claim_names_the_nearest():
    with pytest.raises(ArgumentError, match="coin-1"): find_claim('coin-11')


def test_import_is_lazy():
    call([sys.executable, '-c', 'import sys, dlpractice, dlpractice.cli; assert not [m for m in sys.modules if m.startswith("dlpractice.claim")]'], cwd=root)


# ---- runs

def hear_interrupts():
    "Where the tests were started in the background, Ctrl-C is ignored, and what they start would inherit that."
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def script(what, folder, *rest, **env):
    return subprocess.Popen([sys.executable, str(root/'tests'/'claims_here.py'), what, str(folder), *rest], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            env=os.environ | env, preexec_fn=hear_interrupts if os.name == 'posix' else None)


def ran(marks): return sorted(int(p.name.split('-')[0]) for p in marks.iterdir() if '-' in p.name)


@pytest.fixture
def marks(tmp_path):
    (tmp_path/'marks').mkdir()
    return tmp_path/'marks'


def numbers_of(r): return [(t['world'], t['seed'], t['values']) for t in r.trials]


def test_a_run_is_stored_with_all_that_it_needs(tmp_path):
    r = run(coin_1, 'quick', jobs=1, folder=tmp_path, progress=False)
    d = json.loads((tmp_path/'coin-1.json').read_text())
    assert [p.name for p in tmp_path.iterdir()] == ['coin-1.json']
    assert {'id', 'budget', 'verdict', 'judged', 'declaration', 'made', 'seconds', 'load', 'machines', 'git', 'code', 'trials'} == set(d)
    assert d['declaration']['margin'] == 0.05 and d['machines'][0]['torch'] and re.fullmatch(r'[0-9a-f]{40}|', d['git']['commit'])
    assert [(t['world'], t['seed']) for t in d['trials']] == [(w, s) for w in ('coin', 'other') for s in range(5)]
    assert all({'values', 'seconds', 'made', 'machine', 'effect'} < set(t) and t['values']['threads'] == 1 for t in d['trials'])
    assert (r.verdict, r.here, r.stale()) == ('supported', False, [])


def test_processes_and_dask_give_the_same_numbers(tmp_path):
    alone = run(coin_1, 'quick', jobs=1, folder=tmp_path/'a', progress=False)
    two = run(coin_1, 'quick', jobs=2, folder=tmp_path/'b', progress=False)
    said, p = '', script('dask', tmp_path/'c', 'coin-1')
    said, _ = p.communicate(timeout=300)
    assert p.returncode == 0, said
    assert 'workers 2' in said
    assert numbers_of(alone) == numbers_of(two) == numbers_of(Result(tmp_path/'c'/'coin-1.json'))


def test_a_killed_worker_costs_its_own_trial_only(tmp_path, marks):
    (marks/'die').write_text('once')
    p = script('run', tmp_path/'r', 'coin-2', MARKS=str(marks), SLOW='0.05')
    said, _ = p.communicate(timeout=300)
    assert p.returncode == 0 and not (marks/'die').exists(), said
    assert len(Result(tmp_path/'r'/'coin-2.json').trials) == 8 and ran(marks).count(3) == 2


def test_workers_that_always_die_are_an_error_that_keeps_the_rest(tmp_path, marks):
    (marks/'die').write_text('always')
    p = script('run', tmp_path/'r', 'coin-2', MARKS=str(marks))
    said, _ = p.communicate(timeout=300)
    assert p.returncode != 0 and 'workers that live' in said and 'fewer jobs' in said, said
    kept = list((tmp_path/'r'/'coin-2.quick.part').glob('*.json'))
    assert 0 < len(kept) < 8 and not (tmp_path/'r'/'coin-2.json').exists()


def wait_for(folder, n, seconds=120):
    end = time.time() + seconds
    while len(list(folder.glob('*.json'))) < n:
        assert time.time() < end
        time.sleep(0.05)


def test_a_killed_run_goes_on_where_it_was(tmp_path, marks):
    parts = tmp_path/'r'/'coin-2.quick.part'
    p = script('run', tmp_path/'r', 'coin-2', MARKS=str(marks), SLOW='0.7')
    wait_for(parts, 2)
    p.kill()
    p.wait()
    time.sleep(2) # its workers end by themselves
    done = {int(o.stem.split('-')[1]) for o in parts.glob('*.json')}
    before = len(ran(marks))
    said, _ = script('run', tmp_path/'r', 'coin-2', MARKS=str(marks)).communicate(timeout=300)
    again = ran(marks)
    assert len(Result(tmp_path/'r'/'coin-2.json').trials) == 8 and 2 <= len(done) < 8, said
    assert len(again) - before == 8 - len(done) and not parts.exists()


@pytest.mark.skipif(os.name == 'nt', reason='needs a signal')
def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(tmp_path, marks):
    parts = tmp_path/'r'/'coin-2.quick.part'
    p = script('cli', tmp_path/'r', 'run', 'coin-2', '--jobs', '2', MARKS=str(marks), SLOW='0.7')
    wait_for(parts, 2)
    p.send_signal(signal.SIGINT)
    said, _ = p.communicate(timeout=120)
    assert p.returncode == 130 and 'Every finished trial is kept' in said and 'dlpractice claims run coin-2 --budget quick' in said and 'Traceback' not in said, said
    assert 2 <= len(list(parts.glob('*.json'))) < 8
    p = script('cli', tmp_path/'r', 'run', 'coin-2', '--jobs', '2', MARKS=str(marks))
    said, _ = p.communicate(timeout=120)
    assert p.returncode == 0 and 'supported on coin' in said and re.search(r'coin-2.*8/8', said), said


def test_parts_of_other_code_are_run_again(tmp_path, marks, monkeypatch):
    monkeypatch.setenv('MARKS', str(marks))
    parts = tmp_path/'coin-2.quick.part'
    parts.mkdir()
    (parts/'coin-000.json').write_text(json.dumps(dict(stamp=dict(id='coin-2', budget='quick', code={}), values=dict(heads=99.))))
    (parts/'coin-001.json').write_text('{"stamp": ')
    r = run(coin_2, 'quick', jobs=1, folder=tmp_path, progress=False)
    assert ran(marks) == list(range(8)) and max(t['values']['heads'] for t in r.trials) < 1
    run(coin_2, 'quick', jobs=1, folder=tmp_path, progress=False)
    assert len(ran(marks)) == 8, 'what is there and not stale is not run again'
    run(coin_2, 'quick', jobs=1, folder=tmp_path, progress=False, again=True)
    assert len(ran(marks)) == 16


def test_a_failing_trial_is_named(tmp_path):
    def trial(seed, budget, world): raise ValueError('no')
    bad = replace(coin_1.claim, id='coin-3', trial=trial)
    with pytest.raises(TrainingError, match='coin-3, coin-000 failed: ValueError: no'): bad.run('quick', jobs=1, folder=tmp_path, progress=False)


def test_timed_trials_run_here_one_by_one(tmp_path):
    seen = []
    def trial(seed, budget, world):
        seen.append((seed, world, os.getpid()))
        return dict(heads=0.6, tails=0.4)
    replace(coin_1.claim, id='coin-4', timed=True, trial=trial).run('quick', folder=tmp_path, progress=False)
    assert seen == [(s, w, os.getpid()) for s in range(5) for w in ('coin', 'other')]


def test_random_states_and_threads_are_as_before(tmp_path):
    import torch
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    run(coin_1, 'quick', jobs=1, folder=tmp_path, progress=False)
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads


# ---- stale

def test_stale_names_what_changed(tmp_path, monkeypatch):
    r = run(coin_1, 'quick', jobs=1, folder=tmp_path, progress=False)
    monkeypatch.setitem(claims._declared, 'coin-1', replace(coin_1.claim, margin=0.3, rule='other words'))
    assert r.stale() == ['margin'] and 'Stale: margin changed since.' in repr(r)
    monkeypatch.setitem(claims._declared, 'coin-1', replace(coin_1.claim, trial=coin_2))
    assert 'trial' in r.stale()
    damaged = tmp_path/'bad.json'
    damaged.write_text('{')
    with pytest.raises(DataError, match='Restore the file'): Result(damaged)
    with pytest.raises(DataError, match='dlpractice claims run nothing-1'): Result(tmp_path/'nothing-1.json')


def test_code_of_a_notebook_and_of_its_module_agree():
    "nbdev writes `from dlpractice.x` as `from .x`."
    assert claims._normal('def f():\n    from dlpractice.data import glyphs') == claims._normal('def f():\n    from .data import glyphs')


# ---- rates

@settings(deadline=None)
@given(st.lists(st.tuples(st.one_of(st.just(float('nan')), st.floats(0, 1)), st.floats(0, 1)), min_size=5, max_size=5), st.booleans())
def test_the_rate_is_chosen_by_validation_alone(scores, higher):
    def train(rate, table=dict(zip(map(float, sweep_points(0.1)), scores))): return table[rate]
    if all(math.isnan(v) for v, _ in scores):
        with pytest.raises(DataError): sweep_rates(train, 0.1, higher=higher)
        return
    s = sweep_rates(train, 0.1, higher=higher)
    known = [v for v, _ in scores if not math.isnan(v)]
    assert s.valid[s.best] == (max if higher else min)(known) and s.score == scores[s.best][1]
    shuffled = {r: (v, 1 - t) for r, (v, t) in zip(map(float, sweep_points(0.1)), scores)}
    assert sweep_rates(shuffled.get, 0.1, higher=higher).best == s.best


def test_the_fixed_sweep_has_twelve_points(): assert len(sweep_points()) == 12 and sweep_points()[[0, -1]] == pytest.approx([1e-4, 10])


# ---- pictures

def test_plot_shows_every_seed_and_a_row_for_each_world(tmp_path):
    r = run(coin_1, 'quick', jobs=1, folder=tmp_path, progress=False)
    axs = r.plot()
    assert axs.shape == (2, 2)
    for left, right in axs:
        assert sum(len(o.get_xdata()) == 1 and o.get_marker() == 'o' for o in left.lines) == 10
        assert any(len(o.get_xdata()) == 5 for o in right.lines) and right.get_ylabel() and left.get_ylabel()
    with pytest.raises(ArgumentError, match='two axes for each of 2 worlds'): r.plot(axs[0])


def test_plot_marks_censored_trials():
    values = [dict(heads=10., tails=None if i < 2 else 30., limit=40.) for i in range(5)]
    pairs = [bounds(ratio, v) for v in values]
    judged = judge_trials(ratio, dict(coin=pairs))
    trials = [dict(world='coin', seed=i, effect=[claims._finite(o) for o in p], values=v) for i, (p, v) in enumerate(zip(pairs, values))]
    r = Result(dict(id='coin-1', budget='quick', declaration=claims.declaration(ratio), code={}, made='2026-01-01', trials=trials, judged=judged, verdict='supported',
                    machines=[dict(cpu='c', torch='2')], git={}))
    (left, right), = r.plot()
    assert sum(o.get_marker() == '^' and len(o.get_xdata()) == 1 for o in left.lines) == 2
    assert '2 of them censored' in says(r) and 'unbounded' in says(r)


# ---- the list and the board

def test_the_list_is_whole():
    assert len(RULES) == 67 and all(o.rule and o.experiment and o.said_in for o in RULES.values())
    assert all((root/'nbs'/o).exists() for o in LESSONS)


def fake(id, effects, margin=0.1, kind='more'):
    c = replace(coin_1.claim, id=id, margin=margin, kind=kind, worlds=tuple(effects))
    judged = judge_trials(c, {w: [(e, e) for e in es] for w, es in effects.items()})
    trials = [dict(world=w, seed=i, effect=[e, e], values={}) for w, es in effects.items() for i, e in enumerate(es)]
    return Result(dict(id=id, budget='quick', declaration=claims.declaration(c), code={}, made='2026-01-01', trials=trials, judged=judged, verdict=overall(judged)[0], machines=[], git={}))


some = {'lr-1': fake('lr-1', dict(a=[0.2, 0.21, 0.22])), 'lr-2': fake('lr-2', dict(a=[0.1, 0.0, 0.3], b=[0.2, 0.25, 0.21])), 'minima-1': fake('minima-1', dict(a=[-1., -1.1, -1.05]))}


def test_the_board_is_sorted_by_effect_and_shows_all():
    rows = board_rows(some)
    assert [o['rule'].id for o in rows][:4] == ['lr-1', 'lr-2', 'minima-1', 'shapes-1'] and len(rows) == 67
    assert [o['result'].verdict for o in rows[:3]] == ['supported', 'inconclusive', 'refuted']
    assert strength(some['lr-2']) == min(beyond_margin(some['lr-2'].effects(w), 0.1, 'more') for w in 'ab')


class Board_(HTMLParser):
    "Ids, and whether every tag is closed, every field labelled, and nothing comes from elsewhere."
    def __init__(self, text):
        super().__init__()
        self.ids, self.open, self.text, self.fields = [], [], '', []
        self.feed(text)
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if a.get('id'): self.ids.append(a['id'])
        if tag in ('input', 'select'): self.fields.append((a['name'], 'label' in self.open))
        assert not any(k.startswith('on') or k == 'src' for k in a)
        if tag not in ('input',): self.open.append(tag)
    def handle_endtag(self, tag): assert self.open.pop() == tag
    def handle_data(self, data):
        if 'style' not in self.open and 'script' not in self.open: self.text += data


def test_the_boards_html_is_sound():
    page = Board_(Board(board_rows(some), lab=False)._repr_html_())
    assert sorted(page.ids) == sorted(RULES) and not page.open
    assert page.fields == [(o, True) for o in ('words', 'topic', 'verdict', 'order')]
    assert page.text.count('not run yet') == 64 + 1 and 'supported here' in page.text # one is in the menu


def cell_html(path):
    outputs = [o['data']['text/html'] for c in json.loads(path.read_text(encoding='utf-8'))['cells'] for o in c.get('outputs', []) if 'text/html' in o.get('data', {})]
    assert len(outputs) == 1
    return ''.join(outputs[0])


def test_the_page_shows_the_stored_results():
    assert cell_html(root/'nbs'/'claims'/'00_board.ipynb') == Board(lab=False)._repr_html_(), 'execute nbs/claims/00_board.ipynb'


browser = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
steps = '''<script>
const f = document.querySelector('.dlp-board form'), said = [];
const shown = () => [...document.querySelectorAll('.dlp-cards > li')].filter(o => !o.hidden).map(o => o.id);
const set = (name, value) => { f.elements[name].value = value; f.elements[name].dispatchEvent(new Event('input', {bubbles: true})); f.elements[name].dispatchEvent(new Event('change', {bubbles: true})); };
said.push(shown().length);
set('words', 'skip CONNECTIONS'); said.push(shown());
set('words', 'no such words'); said.push(document.querySelector('[role=status]').textContent);
set('words', ''); set('verdict', 'refuted'); said.push(shown());
set('verdict', ''); set('topic', 'Text'); said.push(shown());
set('topic', ''); set('order', 'list'); said.push(shown().slice(0, 3));
set('order', 'effect'); said.push(shown().slice(0, 3));
said.push(document.documentElement.scrollWidth <= window.innerWidth);
document.title = JSON.stringify(said);
</script>'''


@pytest.mark.skipif(not browser, reason='needs a browser')
def test_the_board_searches_filters_and_sorts(tmp_path):
    (tmp_path/'a.html').write_text('<!doctype html><meta name="viewport" content="width=device-width"><body>' + Board(board_rows(some), lab=False)._repr_html_() + steps, encoding='utf-8')
    done = subprocess.run([browser, '--headless=new', '--no-sandbox', '--disable-gpu', f'--user-data-dir={tmp_path}/profile', '--window-size=390,800', '--dump-dom', (tmp_path/'a.html').as_uri()],
                          capture_output=True, text=True, timeout=120)
    said = json.loads(re.search(r'<title>(.*?)</title>', done.stdout)[1])
    assert said == [67, ['minima-4'], 'No rule fits. Clear a field to see more.', ['minima-1'], ['text-1', 'text-2', 'text-3', 'text-4'],
                    ['shapes-1', 'shapes-2', 'approx-1'], ['lr-1', 'lr-2', 'minima-1'], True]


def test_links_between_lessons_and_claims_are_in_step():
    call([sys.executable, 'tools/claim_links.py', '--check'], cwd=root)


def test_link_check_sees_a_difference(copy, tmp_path):
    tree = tmp_path/'tree'
    shutil.copytree(copy, tree, symlinks=True)
    path = tree/'nbs'/'lessons'/'30_landscape.ipynb'
    text = path.read_text(encoding='utf-8')
    assert text.count('Skip connections smooth the landscape') == 1
    path.write_text(text.replace('Skip connections smooth the landscape', 'Skips'), encoding='utf-8')
    done = subprocess.run([sys.executable, 'tools/claim_links.py', '--check'], cwd=tree, capture_output=True, text=True, env=os.environ | {'PYTHONPATH': str(tree)})
    assert done.returncode == 1 and '30_landscape' in done.stderr


# ---- the command

def cli(*args): return subprocess.run([sys.executable, '-c', 'import sys; from dlpractice.cli import main; sys.exit(main())', 'claims', *args], capture_output=True, text=True, timeout=120)


def test_command_line():
    from dlpractice.claims import BUDGETS
    done = cli('list')
    assert done.returncode == 0 and len(done.stdout.splitlines()) >= 67
    done = cli('run', 'minimaa')
    assert done.returncode == 2 and 'Traceback' not in done.stderr and 'the id of a claim, a family, or all' in done.stderr
    done = cli('show', 'gen-1')
    assert done.returncode == 1 and 'no experiment yet' in done.stdout
    assert all(o in cli('run', '--help').stdout for o in (*BUDGETS, 'loky', 'dask', '--jobs'))


# ---- the stored results

def test_every_declared_claim_is_in_the_list():
    assert [k for k in claims.all_claims() if k not in RULES and not k.startswith('coin-')] == []


@pytest.mark.parametrize('path', stored, ids=lambda p: p.stem)
def test_stored_verdict_follows_from_its_trials(path):
    r = Result(path)
    c = find_claim(r.id)
    assert path.stem == r.id in RULES and r.budget in ('stored', 'full')
    assert sorted((t['world'], t['seed']) for t in r.trials) == sorted((w, s) for w in c.worlds for s in range(c.seeds[r.budget])), 'every trial, and no other'
    for w in c.worlds: assert [t['seed'] for t in r.of(w)] == list(range(c.seeds[r.budget])) # timed trials take the worlds in turn
    effects = {w: [bounds(c, t['values']) for t in r.of(w)] for w in c.worlds}
    for w in c.worlds: np.testing.assert_allclose(r.effects(w), effects[w], rtol=1e-9)
    judged = judge_trials(c, effects)
    assert overall(judged)[0] == r.verdict
    for w, j in judged.items():
        assert {k: v for k, v in j.items() if not isinstance(v, float)} == {k: v for k, v in r.judged[w].items() if not isinstance(v, float)}
        assert [v for v in j.values() if isinstance(v, float)] == pytest.approx([v for v in r.judged[w].values() if isinstance(v, float)], rel=1e-6)
    assert r.stale() == [], 'run it again: dlpractice claims run --budget stored'


def seconds(path):
    "What its trials took. Those about transfer are shared in a process, so that each alone takes what all of them took."
    return sum(t['seconds'] for p in ([p for p in stored if p.stem.startswith('tl-')] if path.stem.startswith('tl-') else [path]) for t in Result(p).trials)


cheap = sorted((p for p in stored if not Result(p).stored['declaration']['timed'] and seconds(p) < 300), key=seconds)[:2]


@pytest.mark.parametrize('path', cheap, ids=lambda p: p.stem)
def test_a_cheap_claim_comes_out_the_same(path, tmp_path):
    old = Result(path)
    new = run(old.id, old.budget, jobs=max(1, cores//workers), folder=tmp_path, progress=False)
    assert {w: j['verdict'] for w, j in new.judged.items()} == {w: j['verdict'] for w, j in old.judged.items()}


def test_two_claims_are_cheap_enough_to_be_run_again(): assert len(cheap) == 2 or len(stored) < 8


def test_a_changed_result_is_noticed(tmp_path):
    "The check above refuses a verdict that its trials do not give."
    r = run(coin_1, 'quick', jobs=1, folder=tmp_path, progress=False)
    d = r.stored | dict(trials=[t | dict(values=t['values'] | dict(heads=0.2)) for t in r.trials])
    effects = {w: [bounds(coin_1.claim, t['values']) for t in Result(d).of(w)] for w in r.worlds}
    assert overall(judge_trials(coin_1.claim, effects))[0] != r.verdict
