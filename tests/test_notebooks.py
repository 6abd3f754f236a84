"Every notebook runs from top to bottom, each in a process of its own and with no network."
import sys
from pathlib import Path

import pytest

from conftest import root
from run_notebook import notebooks, run


@pytest.mark.parametrize('path', notebooks(), ids=lambda p: p.relative_to(root/'nbs').as_posix())
def test_notebook(path):
    done = run(path, nbdev=True)
    assert done.returncode == 0, f'{path.relative_to(root)} does not run:\n{done.stdout[-8000:]}'


def _notebook(tmp_path, code):
    "A notebook of one code cell."
    import nbformat
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)], metadata={'kernelspec': {'name': 'python3', 'display_name': 'python3', 'language': 'python'}})
    path = tmp_path/'one.ipynb'
    nbformat.write(nb, path)
    return path


@pytest.mark.parametrize('nbdev', [True, False], ids=['nbdev', 'ipython'])
def test_a_failing_notebook_fails_with_its_traceback(tmp_path, nbdev):
    done = run(_notebook(tmp_path, 'expected = 3\nassert expected == 4, "not four"'), nbdev=nbdev)
    assert done.returncode and 'not four' in done.stdout


@pytest.mark.parametrize('code', ['import urllib.request\nurllib.request.urlopen("http://example.org/")', 'import socket\nsocket.create_connection(("192.0.2.1", 80))'])
def test_the_network_is_blocked(tmp_path, code):
    done = run(_notebook(tmp_path, code))
    assert done.returncode and 'tests run without a network' in done.stdout


def test_loopback_is_not_blocked(tmp_path):
    code = 'import socket\ns = socket.create_server(("127.0.0.1", 0))\nsocket.create_connection(s.getsockname()).close()\nsocket.create_connection(("localhost", s.getsockname()[1])).close()'
    assert run(_notebook(tmp_path, code)).returncode == 0
