"The repository is in step with itself: exports, README, notebooks, settings, floors, prose."
import ast, json, re, subprocess, sys
from configparser import ConfigParser
from copy import deepcopy
from types import SimpleNamespace

import pytest
import yaml
from markdown_it import MarkdownIt

from conftest import call, root, shared, together, tracked
from floors import floor
from run_notebook import notebooks

if sys.version_info >= (3, 11): import tomllib
else: import tomli as tomllib

ini = ConfigParser()
ini.read(root/'settings.ini', encoding='utf-8')
ini = ini['DEFAULT']
project = tomllib.loads((root/'pyproject.toml').read_text(encoding='utf-8'))
quarto = yaml.safe_load((root/'_quarto.yml').read_text(encoding='utf-8'))
modules = sorted((root/'dlpractice').glob('*.py'))
every_notebook = pytest.mark.parametrize('path', notebooks(), ids=lambda p: p.relative_to(root/'nbs').as_posix())
every_module = pytest.mark.parametrize('path', modules, ids=lambda p: p.stem)


def cells(path, kind): return [''.join(c['source']) for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == kind]


# ---- in step

def test_exports_are_in_step(copy, tmp_path):
    import shutil
    tree = tmp_path/'tree'
    shutil.copytree(copy, tree, symlinks=True)
    for p in (tree/'dlpractice').glob('*.py'):
        if p.name != '__init__.py': p.unlink()
    call([sys.executable, 'tools/export.py'], cwd=tree)
    fresh = {p.name: p.read_text(encoding='utf-8') for p in (tree/'dlpractice').glob('*.py')}
    ours = {p.name: p.read_text(encoding='utf-8') for p in modules}
    assert set(fresh) == set(ours), 'modules without a notebook, or notebooks never exported: run make export'
    assert not [o for o in ours if ours[o] != fresh[o]], 'run make export'


def test_readme_and_contributing_are_in_step():
    assert 'differ' not in call([sys.executable, 'tools/readme.py', '--check'], cwd=root)


def test_readme_check_sees_a_difference(copy, tmp_path):
    import shutil
    tree = tmp_path/'tree'
    shutil.copytree(copy, tree, symlinks=True)
    with (tree/'README.md').open('a') as f: f.write('more')
    done = subprocess.run([sys.executable, 'tools/readme.py', '--check'], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 1 and 'README.md' in done.stderr and 'CONTRIBUTING' not in done.stderr


def cleaned(path):
    "A notebook as it is, and as nbdev's cleaning leaves it."
    from fastcore.nbio import read_nb, nb2str
    from nbdev.clean import _nbdev_clean
    nb = read_nb(path)
    clean = deepcopy(nb)
    _nbdev_clean(clean)
    return path.read_text(encoding='utf-8'), nb2str(clean)


@every_notebook
def test_notebook_is_clean(path):
    ours, clean = cleaned(path)
    assert ours == clean, f'{path.relative_to(root)} is not clean: run make clean-nbs'


def test_cleaning_sees_a_count(tmp_path):
    nb = json.loads(notebooks()[0].read_text(encoding='utf-8'))
    next(c for c in nb['cells'] if c['cell_type'] == 'code')['execution_count'] = 7
    (tmp_path/'a.ipynb').write_text(json.dumps(nb))
    ours, clean = (json.loads(o) for o in cleaned(tmp_path/'a.ipynb'))
    assert ours != clean


def test_settings_agree():
    import dlpractice
    citation = yaml.safe_load((root/'CITATION.cff').read_text(encoding='utf-8'))
    about, site, urls = project['project'], quarto['website'], project['project']['urls']
    assert ini['lib_name'] == about['name'] == project['tool']['nbdev']['title'] == site['title'] == citation['title'] == 'dlpractice'
    assert ini['version'] == dlpractice.__version__ == str(citation['version'])
    assert ini['version'] in (root/'CHANGELOG.md').read_text(encoding='utf-8')
    assert about['requires-python'] == f'>={ini["min_python"]}' and about['license'] == citation['license'] == 'Apache-2.0'
    assert urls['Repository'] == site['repo-url'] == citation['repository-code'] and urls['Documentation'] == site['site-url'] == citation['url']
    assert about['description'] == citation['abstract']
    assert {'version', 'dependencies', 'optional-dependencies'} <= set(about['dynamic'])


def requirements(key): return [re.match(r'[\w.-]+', o)[0] for o in ini[key].split('\n') if o.strip()]


@pytest.mark.parametrize('kind', ['', 'lab_', 'scale_', 'dev_'], ids=['runtime', 'lab', 'scale', 'dev'])
def test_every_dependency_has_its_line_in_the_guide(kind):
    guide = '\n'.join(cells(root/'nbs'/'guides'/'contribute.ipynb', 'markdown'))
    named = set(re.findall(r'^\| `([\w.-]+)` \| \S.* \| \S.* \|$', guide, re.M))
    assert not [o for o in requirements(f'{kind}requirements') if o not in named], 'no line in the table of dependencies'
    everything = {o for k in ('', 'lab_', 'scale_', 'dev_') for o in requirements(f'{k}requirements')}
    assert not named - everything, 'a line for what is no dependency'


def test_oldest_constraints():
    said = call([sys.executable, 'tools/oldest.py'], cwd=root).split()
    assert [o.split('==')[0] for o in said] == requirements('requirements') and all('==' in o for o in said)


def test_make_targets_that_are_named_exist():
    there = set(re.findall(r'^([\w-]+):', (root/'Makefile').read_text(), re.M))
    prose = '\n'.join([*('\n'.join(cells(p, 'markdown')) for p in notebooks()), (root/'.ci'/'run').read_text(), *(p.read_text() for p in (root/'.github').rglob('*.yml'))])
    named = set(re.findall(r'(?:^|`|run: )make ([a-z][\w-]+)', prose, re.M))
    assert named and not named - there


# ---- the site's table of contents

def test_quarto_lists_every_notebook_and_only_those():
    def paths(o):
        if isinstance(o, str): return [o]
        if isinstance(o, dict): return paths(o.get('contents', o.get('href', [])))
        return [p for e in o for p in paths(e)]
    listed = paths(quarto['website']['sidebar']['contents'])
    assert len(listed) == len(set(listed))
    assert sorted(listed) == sorted(p.relative_to(root/'nbs').as_posix() for p in notebooks())
    assert (root/'nbs'/'_quarto.yml').resolve() == root/'_quarto.yml'


# ---- the code

def imported(path):
    "(module of dlpractice, is it a star import?) for each import in a file, wherever it stands."
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import): yield from ((a.name.split('.')[1], False) for a in node.names if a.name.startswith('dlpractice.'))
        if isinstance(node, ast.ImportFrom):
            star = any(a.name == '*' for a in node.names)
            assert node.level < 2
            name = f'dlpractice.{node.module or ""}'.rstrip('.') if node.level else node.module # nbdev exports `dlpractice.x` as `.x`
            if name.startswith('dlpractice.'): yield name.split('.')[1], star
            elif name == 'dlpractice': yield from ((a.name, star) for a in node.names if a.name != '__version__')
            elif star: yield '', True


hand_written = ('__init__', '_modidx', '__main__')


@every_module
def test_floors_hold(path):
    if path.stem in hand_written: return
    assert path.stem in floor, f'{path.stem} has no floor in tests/floors.py'
    wrong = [m for m, _ in imported(path) if m not in floor or floor[m] >= floor[path.stem]]
    assert not wrong, f'{path.stem} (floor {floor[path.stem]}) imports {wrong}, which are not on lower floors'
    assert not any(star for _, star in imported(path)), 'star import'


def test_floors_see_an_upward_import(tmp_path):
    (tmp_path/'plots.py').write_text('def f():\n    from dlpractice.training import Learner\n    import dlpractice.data\n    from dlpractice import cli\n    from .runs import machine\n    from math import *')
    assert set(imported(tmp_path/'plots.py')) == {('training', False), ('data', False), ('cli', False), ('runs', False), ('', True)}


@every_module
def test_module_is_not_too_long(path):
    lines = [o for o in path.read_text(encoding='utf-8').splitlines() if o.strip() and not o.startswith('# %%')]
    if path.stem != '_modidx': assert len(lines) <= 400, 'ask what it really holds'


light = ['import dlpractice', 'from dlpractice import lr_range_test, Learner, unchanged'] + [f'import dlpractice.{p.stem}' for p in modules if p.stem not in hand_written]


@pytest.fixture(scope='session')
def loaded():
    "line -> heavy packages that it loads, each in a process of its own; where there is `fork`, torch is imported once for all."
    script = """if True:
        import json, os, subprocess, sys
        heavy = 'torchvision', 'matplotlib.pyplot', 'sklearn', 'pandas', 'IPython', 'ipywidgets'
        look = 'import sys; print(*[m for m in %r if m in sys.modules])' % (heavy,)
        def here(line):
            read, write = os.pipe()
            if not os.fork():
                try: exec(line, {}); said = ' '.join(m for m in heavy if m in sys.modules)
                except BaseException as e: said = repr(e)
                os.write(write, said.encode())
                os._exit(0)
            os.close(write)
            os.wait()
            with os.fdopen(read) as f: return f.read()
        if hasattr(os, 'fork'):
            import torch
            run = here
        else: run = lambda line: subprocess.run([sys.executable, '-c', line + '; ' + look], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout.strip()
        print(json.dumps({line: run(line) for line in json.loads(sys.argv[1])}))"""
    return json.loads(call([sys.executable, '-c', script, json.dumps([*light, 'import pandas'])], cwd=root).splitlines()[-1])


@pytest.mark.parametrize('line', light)
def test_import_is_light(line, loaded): assert loaded[line] == ''


def test_what_is_heavy_is_seen(loaded): assert loaded['import pandas'] == 'pandas'


def test_top_level_names():
    import dlpractice
    for name in dlpractice.__all__: assert getattr(dlpractice, name).__name__ == name
    with pytest.raises(AttributeError, match='no attribute'): dlpractice.no_such_name


# ---- the notebooks

@every_notebook
def test_notebook_is_well_formed(path):
    assert path.stat().st_size < 1_000_000, 'over 1 MB'
    first = cells(path, 'markdown')[0]
    assert re.match(r'# \S.*\n\n> \S.*', first), 'the first cell is a title and a one-line summary in a quote'
    code = '\n'.join(cells(path, 'code'))
    assert not re.search(r'^\s*(?:import|from) nbdev', code, re.M), 'notebooks never import nbdev'
    assert not re.search(r'^(?:torch|np\.random|numpy\.random|random)\.(?:manual_)?seed\(', code, re.M), 'seeds are set by `with seeded(seed):`'
    for node in (n for o in cells(path, 'code') for n in _imports(o)): assert not any(a.name == '*' for a in node.names), 'star import'


def _imports(code):
    try: tree = ast.parse(re.sub(r'^\s*[%!].*', 'pass', code, flags=re.M))
    except SyntaxError: return []
    return [n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]


@every_notebook
def test_pictures_have_alt_text(path):
    for c in json.loads(path.read_text(encoding='utf-8'))['cells']:
        pictures = [o for o in c.get('outputs', []) if any(k.startswith('image/') for k in o.get('data', {}))]
        if not pictures: continue
        directives = dict(re.findall(r'^#\| *([\w-]+): *(.*)$', ''.join(c['source']), re.M))
        assert {'label', 'fig-cap', 'fig-alt'} <= set(directives) and directives['label'].startswith('fig-'), ''.join(c['source'])
        assert len(directives['fig-alt']) > 20 and len(pictures) == 1, 'one picture per cell, with an alt text that says something'


callout = re.compile(r'^:::+ *(?:\{\.callout-(?:note|tip|important|warning|caution)(?: +(?:collapse|title|icon|appearance)="[^"]*")*\})? *$')


def faults(text, path):
    "What is in a prose cell besides headings, lists, tables, math, code, callouts, figures and relative links to notebooks."
    found, plain = [], re.sub(r'^ *(```+|~~~+).*?^ *\1 *$', '', text, flags=re.S | re.M)
    plain = re.sub(r'(`+)(?!`).*?(?<!`)\1(?!`)', '', plain)
    no_math = re.sub(r'\$\$.*?\$\$|(?<![\\$])\$(?!\s).*?(?<!\s)\$', '', plain, flags=re.S)
    found += [f'shortcode {o}' for o in re.findall(r'\{\{<.*?>\}\}', plain)]
    found += [f'div {o!r}' for o in plain.split('\n') if o.startswith(':::') and not callout.match(o)]
    found += [f'footnote {o}' for o in re.findall(r'\[\^[\w-]+\]', plain)]
    found += [f'HTML {o!r}' for o in re.findall(r'</?[a-zA-Z][^>]*>', no_math) if not re.match(r'<https?://', o)]
    for token in MarkdownIt('commonmark').enable('table').parse(text):
        for t in token.children or []:
            if t.type == 'image' and (not t.content or re.match(r'\w+:', t.attrs['src'])): found.append(f'picture {t.attrs["src"]} without alt text, or from elsewhere')
            if t.type == 'link_open': found += link_faults(t.attrs['href'], path)
    return found


def link_faults(href, path):
    "Links lead to other notebooks, to places on the page, or out; never to built pages."
    if re.match(r'https?://', href) or href.startswith('#'): return []
    file = href.split('#')[0]
    if not file.endswith('.ipynb'): return [f'link {href}: neither a notebook nor an address']
    return [] if (path.parent/file).resolve().is_file() and not file.startswith('/') else [f'link {href}: no such notebook']


@every_notebook
def test_prose_has_only_what_both_builders_render(path):
    assert not [o for text in cells(path, 'markdown') for o in faults(text, path)]


def test_prose_check_refuses():
    here = root/'nbs'/'core'/'00_errors.ipynb'
    good = ['## A $x<y$ title {#sec-a}', '::: {.callout-note}\nyes\n:::', '[a](01_plots.ipynb#colours)', '`<b>` and\n\n```html\n<b>\n```', '| a | b |\n|---|---|\n| $1$ | 2 |', '<!-- note -->']
    bad = ['<b>bold</b>', '::: {.panel-tabset}\n:::', '[a](nowhere.ipynb)', '[a](errors.html)', '![](a.png)', '![a](https://example.org/a.png)', '{{< video a >}}', 'note[^1]']
    assert [faults(o, here) for o in good] == [[]]*len(good)
    assert all(faults(o, here) for o in bad)


# ---- what must not be in any file

machine = re.compile('|'.join([r'/wor' + r'k/(?:main|shared|tools)', r'/ro' + r'ot/', r'/home/\w+/', r'/Users/\w+/', r'/tm' + r'p/tmp\w', r'C:\\\\?Users', r'pypi' + r'\.org', r'python' + r'hosted\.org', r'registry\.npm' + r'js', r'deb\.deb' + r'ian\.org']))


@pytest.mark.parametrize('name', [o for o in tracked() if (root/o).suffix not in ('.npz', '.png', '.ico', '.woff2')])
def test_no_addresses_of_machines_or_registries(name):
    text = (root/name).read_text(encoding='utf-8')
    if name.endswith('.ipynb'): # pictures are base64, in which anything may appear
        nb = json.loads(text)
        for o in (o for c in nb['cells'] for o in c.get('outputs', [])):
            for k in [k for k in o.get('data', {}) if k.startswith('image/')]: del o['data'][k]
        text = json.dumps(nb, ensure_ascii=False)
    assert not (m := machine.search(text)), f'{name}: {m[0]}'


@every_notebook
def test_imports_stand_alone(path):
    "nbdev runs every cell that imports when it makes the pages, so such a cell may hold nothing else that runs."
    for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
        code = ''.join(cell['source'])
        if cell['cell_type'] != 'code' or re.search(r'^#\|\s*(export|eval)', code, re.M): continue
        tree = ast.parse(code)
        if any(isinstance(o, (ast.Import, ast.ImportFrom)) for o in ast.walk(tree)):
            assert all(isinstance(o, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)) for o in tree.body), f'{path.name}: move the imports into a cell of their own:\n{code}'


# ---- the tests themselves

def apart(items):
    "Tests that need what is made once, and that `shared` in `conftest.py` does not name: another process would make it again."
    return [o.nodeid for o in items for name in shared if name in o.fixturenames and together(o.nodeid) != name]


def test_what_is_made_once_is_used_by_one_process(request): assert apart(request.session.items) == []


def test_a_test_apart_is_seen():
    other = SimpleNamespace(nodeid='tests/test_other.py::test_page', fixturenames=['tmp_path', 'site'])
    assert apart([other]) == [other.nodeid]
