"What several tests share: the repository, copies of it, the wheel and the site built from it; and how tests are spread over processes."
import atexit, os, re, shutil, subprocess, sys, tempfile
from pathlib import Path

import pytest
import yaml

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

def pytest_xdist_auto_num_workers(config):
    "`-n auto`: as many as there are cores, up to eight: the tests of the site alone take about an eighth of the time."
    return min(cores, 8)


def longest(item):
    """Where a test stands in the order: what takes long begins early, so that no process has to wait for another in the end.

    A lesson or a claim takes about as long as it has cells with code; only the order follows from that."""
    name, path = item.path.name, getattr(item, 'callspec', None) and item.callspec.params.get('path')
    if 'site' in item.fixturenames: return 0, 0
    if 'wheel' in item.fixturenames: return 1, 0
    if name == 'test_notebooks.py' and path: return 2, -path.stat().st_size
    return 3, 0


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    "The site and the wheel are built once: all tests that need one go to one process. Without several processes, the order is that of the files."
    for item in items:
        for name in ('site', 'wheel'):
            if name in item.fixturenames: item.add_marker(pytest.mark.xdist_group(name))
    if workers > 1: items.sort(key=longest)
