"The wheel, built from the sdist and installed where nothing else is, gives a library, a command and lessons that run."
import os, shutil, subprocess, sys, zipfile

import pytest

from conftest import call, root
from run_notebook import notebooks, run


@pytest.fixture(scope='session')
def installed(wheel):
    """The Python of an environment that has the wheel and its requirements, and nothing else.

    It is large (PyTorch), so it is made once, in `.venv-wheel`, and again when the requirements or Python change; the wheel is new each time."""
    folder = root/'.venv-wheel'
    python, stamp = folder/('Scripts/python.exe' if os.name == 'nt' else 'bin/python'), folder/'requirements'
    wants = sys.version + zipfile.ZipFile(wheel[0]).read(next(o for o in zipfile.ZipFile(wheel[0]).namelist() if o.endswith('METADATA'))).decode()
    wants = '\n'.join(o for o in wants.split('\n') if o.startswith(('Requires-Dist', sys.version.split('\n')[0])) and 'extra ==' not in o)
    if not stamp.exists() or stamp.read_text(encoding='utf-8') != wants:
        shutil.rmtree(folder, ignore_errors=True)
        call([sys.executable, '-m', 'venv', folder])
        call([python, '-m', 'pip', 'install', '--quiet', wheel[0]], timeout=3000)
        stamp.write_text(wants, encoding='utf-8')
    else: call([python, '-m', 'pip', 'install', '--quiet', '--no-deps', '--force-reinstall', wheel[0]])
    return python


def test_builds_without_a_warning(wheel):
    usual = 'no previously-included files', 'byte-compiling is disabled'
    odd = [o for o in wheel[2].split('\n') if ('warning' in o.lower() or 'deprecat' in o.lower()) and not any(u in o for u in usual)]
    assert not odd, '\n'.join(odd)


def test_wheel_holds_what_it_should(wheel):
    names = zipfile.ZipFile(wheel[0]).namelist()
    inside = {o.removeprefix('dlpractice/') for o in names if o.startswith('dlpractice/')}
    assert {p.name for p in (root/'dlpractice').glob('*.py')} | {'py.typed'} <= inside
    assert {f'lessons/{p.relative_to(root/"nbs").as_posix()}' for p in notebooks()} <= inside
    for p in (p for p in (root/'nbs').rglob('runs/*') if p.suffix in ('.json', '.npz', '.py')): assert f'lessons/{p.relative_to(root/"nbs").as_posix()}' in inside
    assert not [o for o in names if '__pycache__' in o or '.ipynb_checkpoints' in o or not o.startswith('dlpractice')]


def test_imports(installed, tmp_path):
    code = 'import dlpractice, importlib.util as u; [getattr(dlpractice, o) for o in dlpractice.__all__]; assert not u.find_spec("nbdev"); print(dlpractice.__file__)'
    assert 'site-packages' in call([installed, '-c', code], cwd=tmp_path)


def test_doctor(installed, tmp_path):
    said = call([installed.parent/'dlpractice', 'doctor'], cwd=tmp_path)
    assert 'All that is needed is here.' in said and 'optional jupyterlab' in said


@pytest.fixture(scope='session')
def lessons(installed, tmp_path_factory):
    "The lessons, copied out of the wheel."
    folder = tmp_path_factory.mktemp('lab')
    said = call([installed.parent/'dlpractice', 'lab', 'mine', '--copy-only'], cwd=folder)
    assert 'Lessons in ' in said and ' new' in said
    return folder/'mine'


def test_lessons_are_those_of_the_checkout(lessons, tmp_path):
    from dlpractice.cli import lesson_files
    theirs = {p.relative_to(lessons).as_posix(): p.read_bytes() for p in lessons.rglob('*') if p.is_file() and p.name != '.dlpractice.json'}
    assert theirs == {name: p.read_bytes() for name, p in lesson_files(root/'nbs')}


@pytest.mark.parametrize('name', ['index.ipynb', *sorted(p.relative_to(root/'nbs').as_posix() for p in (root/'nbs'/'lessons').glob('*.ipynb'))[:1]])
def test_a_lesson_runs(installed, lessons, name):
    done = run(lessons/name, python=str(installed))
    assert done.returncode == 0, done.stdout[-8000:]


def test_lab_says_what_is_missing(installed, tmp_path):
    done = subprocess.run([installed.parent/'dlpractice', 'lab'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and 'pip install "dlpractice[lab]"' in done.stdout
    assert (tmp_path/'dlpractice-lessons'/'index.ipynb').exists()
