"What the guides promise and cannot test of themselves: their stored outputs are quiet, and each has really run where it is read."
import json, re

import pytest

from conftest import root

guides = sorted(p for p in (root/'nbs'/'guides').glob('*.ipynb') if p.stem != 'contribute')
every_guide = pytest.mark.parametrize('path', guides, ids=lambda p: p.stem)


def code_cells(path): return [c for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']


def noise(cells):
    "What a reader should not see: warnings, tracebacks, log lines, and errors that a cell did not catch."
    found = []
    for o in (o for c in cells for o in c['outputs']):
        if o.get('name') == 'stderr': found.append(''.join(o['text']))
        if o['output_type'] == 'error': found.append(o['ename'])
        text = ''.join(o.get('text', ''))
        found += re.findall(r'.*(?:\w+Warning:|Traceback \(most|GPU available|LOCAL_RANK).*', text)
    return found


@every_guide
def test_guide_is_quiet(path): assert not noise(code_cells(path))


def test_noise_is_seen():
    def cell(**output): return [{'outputs': [output]}]
    assert noise(cell(output_type='stream', name='stderr', text='x')) and noise(cell(output_type='error', ename='E'))
    assert noise(cell(output_type='stream', name='stdout', text='a\nUserWarning: log')) and not noise(cell(output_type='stream', name='stdout', text='fine'))


@every_guide
def test_guide_shows_what_it_ran(path):
    "Cells that end in an expression, print or draw have a stored output."
    silent = [''.join(c['source']) for c in code_cells(path) if re.search(r'^(?:print\(|Markdown\(|\w+\.plot\()', ''.join(c['source']), re.M) and not c['outputs']]
    assert not silent


def test_every_way_of_training_is_run():
    "The guide to your own model trains and looks in each of the ways that it names."
    code = '\n'.join(''.join(c['source']) for c in code_cells(root/'nbs'/'guides'/'your_model.ipynb'))
    for way in ('loss.backward()', 'Learner(', 'step_fn=step_fn', 'accelerator.prepare(', 'pl.Trainer(', 'loss_plane(', 'curvature(', 'trace_shapes(', 'asserting('): assert way in code, way
    looks, checks = len(re.findall(r'= (?:learner\.)?lr_range_test\(', code)), len(re.findall(r'test_eq\(fingerprint', code))
    assert looks >= 6 and checks >= looks, 'each range test is followed by a look at what it left'
    assert not re.search(r'#\| *eval: *false|skip', code)
