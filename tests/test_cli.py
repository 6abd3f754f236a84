"The `dlpractice` command, for real."
import os, re, subprocess, sys, threading, time, urllib.request

import pytest

from conftest import call


def cli(*args): return [sys.executable, '-c', 'import sys; from dlpractice.cli import main; sys.exit(main())', *map(str, args)]


def test_version():
    import dlpractice
    assert call(cli('--version')).strip() == f'dlpractice {dlpractice.__version__}'


def test_doctor():
    said = call(cli('doctor'))
    assert re.search(r'^ok +torch +\d', said, re.M) and re.search(r'^ok +fonts +[1-9]', said, re.M) and 'All that is needed is here.' in said


def test_doctor_without_torchvision(tmp_path):
    (tmp_path/'torchvision.py').write_text('raise RuntimeError("operator torchvision::nms does not exist")')
    done = subprocess.run(cli('doctor'), env=os.environ | {'PYTHONPATH': str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1 and 'MISSING  device' in done.stdout and '-> python -m pip install' in done.stdout


def test_unknown_command():
    done = subprocess.run(cli('labb'), capture_output=True, text=True)
    assert done.returncode == 2 and 'invalid choice' in done.stderr and 'Traceback' not in done.stderr


def test_lab_keeps_what_the_learner_changed(tmp_path):
    call(cli('lab', tmp_path/'a b', '--copy-only'))
    index = tmp_path/'a b'/'index.ipynb'
    index.write_text('mine')
    (tmp_path/'a b'/'notes.txt').write_text('notes')
    call(cli('lab', tmp_path/'a b', '--copy-only'))
    assert index.read_text() == 'mine' and (tmp_path/'a b'/'notes.txt').read_text() == 'notes'
    assert not list(tmp_path.rglob('*.part'))


def test_lab_without_jupyterlab(tmp_path):
    code = 'import sys; sys.modules["jupyterlab"] = None; import dlpractice.cli as c; c.find_spec = lambda o: None; sys.exit(c.main())'
    done = subprocess.run([sys.executable, '-c', code, 'lab', str(tmp_path/'x')], capture_output=True, text=True)
    assert done.returncode == 1 and 'pip install "dlpractice[lab]"' in done.stdout and (tmp_path/'x'/'index.ipynb').exists()


@pytest.mark.skipif(os.name == 'nt', reason='needs a signal to stop the server')
def test_lab_serves_the_lessons(tmp_path):
    pytest.importorskip('jupyterlab')
    env = os.environ | {'NO_BROWSER': '1', 'JUPYTER_CONFIG_DIR': str(tmp_path/'config'), 'JUPYTER_DATA_DIR': str(tmp_path/'data'), 'PYTHONUNBUFFERED': '1'}
    p = subprocess.Popen(cli('lab', tmp_path/'lessons', '--port', 18888), env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    lines, found = [], threading.Event()
    def read():
        for line in p.stdout:
            lines.append(line)
            if re.search(r'http://127\.0\.0\.1:\d+/lab/tree/index\.ipynb\?token=\w+', line): found.set()
    threading.Thread(target=read, daemon=True).start()
    try:
        assert found.wait(90), ''.join(lines)
        url = re.search(r'http://127\.0\.0\.1:\d+/lab/tree/index\.ipynb\?token=(\w+)', ''.join(lines))
        def get(address):
            for _ in range(20):
                try: return urllib.request.urlopen(address, timeout=20).read().decode()
                except OSError: time.sleep(0.5)
            raise AssertionError(''.join(lines))
        base = url[0].split('/lab/')[0]
        assert 'jupyter' in get(url[0]).lower()
        listing = get(f'{base}/api/contents/?token={url[1]}')
        assert '"index.ipynb"' in listing and '"core"' in listing
    finally:
        p.terminate()
        p.wait(20)
