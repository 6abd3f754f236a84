"What several tests share: the repository, copies of it, the wheel and the site built from it; and how tests are spread over processes."
import atexit, os, re, shutil, subprocess, sys, tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import settings

root = Path(__file__).resolve().parent.parent
cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
workers = int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', 1))
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
if workers > 1: os.environ.setdefault('OMP_NUM_THREADS', str(max(1, cores//workers)))    # before torch is imported; notebooks and commands inherit it
os.environ['MPLBACKEND'] = 'agg'
os.environ['DLPRACTICE_HOME'] = tempfile.mkdtemp(prefix='dlpractice-')    # never the user's own progress
atexit.register(shutil.rmtree, os.environ['DLPRACTICE_HOME'], ignore_errors=True)


def tracked():
    "Every file that is in git, or would be: relative paths."
    if not (root/'.git').exists(): return [p.relative_to(root).as_posix() for p in root.rglob('*') if p.is_file() and not any(q in ('.venv', '.venv-bench', '_docs', '_proc', 'node_modules', '__pycache__', 'build', 'dist') for q in p.relative_to(root).parts)]
    done = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard', '-z'], cwd=root, capture_output=True, text=True, check=True)
    return sorted(o for o in set(done.stdout.split('\0')) if o and (root/o).exists())


def copy_tree(dest):
    "A copy of the repository, without what is not tracked."
    for o in tracked():
        (dest/o).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root/o, dest/o, follow_symlinks=False)
    return dest


def call(cmd, timeout=1200, **kw):
    "Run a command; the test fails with all that it printed if it fails."
    done = subprocess.run([str(o) for o in cmd], text=True, encoding='utf-8', stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=timeout, **kw)
    assert done.returncode == 0, f'{" ".join(map(str, cmd))}\n{done.stdout[-6000:]}'
    return done.stdout


def _listed(o):
    if isinstance(o, str): return [o]
    if isinstance(o, dict): return _listed(o.get('contents', o.get('href', [])))
    return [p for e in o for p in _listed(e)]


# the site's pages in the order of `_quarto.yml`: notebook under nbs/ -> address without its end
site_pages = {o: re.sub(r'(^|/)\d+[a-z]?_', r'\1', o.removesuffix('.ipynb'))
              for o in _listed(yaml.safe_load((root/'_quarto.yml').read_text(encoding='utf-8'))['website']['sidebar']['contents'])}


@pytest.fixture(scope='session')
def site(tmp_path_factory):
    "The site, built once, into a folder of its own; or the one in the folder that DLPRACTICE_SITE names."
    if os.environ.get('DLPRACTICE_SITE'): return Path(os.environ['DLPRACTICE_SITE']).resolve()
    out = tmp_path_factory.mktemp('site')/'_docs'
    call([sys.executable, 'docs/build.py', '--out', out], cwd=root, timeout=1800)
    return out


@pytest.fixture(scope='session')
def copy(tmp_path_factory):
    "A copy of the repository that nobody changes."
    return copy_tree(tmp_path_factory.mktemp('copy'))


@pytest.fixture(scope='session')
def wheel(tmp_path_factory, copy):
    "The wheel, built from the sdist, as for a release; and what building printed."
    dist, src = tmp_path_factory.mktemp('dist'), tmp_path_factory.mktemp('src')
    shutil.copytree(copy, src, dirs_exist_ok=True, symlinks=True)
    said = call([sys.executable, '-m', 'build', '--outdir', dist, src])
    return next(dist.glob('*.whl')), next(dist.glob('*.tar.gz')), said


# ---- tests in several processes: `pytest -n 2`

settings.register_profile('unhurried', settings(), deadline=None)    # as hypothesis has it on CI by itself: how long an example takes says something of the machine's load only
settings.load_profile('unhurried')


# what is made once, and the tests that need it, which one process runs: the beginnings of their ids
shared = dict(site=('tests/test_site.py::', 'tests/test_browser.py::'), wheel=('tests/test_wheel.py::',), loaded=('tests/test_repo.py::test_import_is_light', 'tests/test_repo.py::test_what_is_heavy'))


def together(nodeid):
    "The shared fixture of a test, or else its own id."
    return next((k for k, v in shared.items() if nodeid.startswith(v)), nodeid)


def early(item):
    "Where a test stands when there are several processes: what takes long begins early, lest one process works alone in the end."
    first = ['site', 'wheel', *(f'tests/test_notebooks.py::test_notebook[{o}/' for o in ('lessons', 'claims', 'guides', 'core'))]
    return next((i for i, o in enumerate(first) if together(item.nodeid).startswith(o)), len(first))


def pytest_collection_modifyitems(items):
    if workers > 1: items.sort(key=early)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    "`-n auto`: as many as there are cores, up to eight, since the tests of the site, one after the other, end no sooner with more."
    return min(cores, 8)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "Tests in their order, each to the process that is free, but those of `shared` together."
    from xdist.scheduler import LoadScopeScheduling
    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid): return together(nodeid)
    config.option.loadscopereorder = False
    return Together(config, log)
