"Files that are written whole or not at all."
import os, subprocess, sys, threading
from unittest.mock import patch
import pytest
from dlpractice.whole_files import locked, whole_file, write_whole


def left(folder): return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt, SystemExit])
def test_what_was_there_stands_after_an_error(tmp_path, error):
    path = tmp_path/'a.bin'
    write_whole(path, b'old')
    with pytest.raises(error):
        with whole_file(path) as part:
            part.write_bytes(b'half')
            raise error
    assert path.read_bytes() == b'old' and left(tmp_path) == ['a.bin']


def test_a_full_disk_leaves_the_old_one(tmp_path):
    path = tmp_path/'a.txt'
    write_whole(path, 'old')
    with patch('os.fsync', side_effect=OSError('no space')), pytest.raises(OSError, match='no space'): write_whole(path, 'new')
    assert path.read_text() == 'old' and left(tmp_path) == ['a.txt']


def test_a_file_held_by_another_program_is_tried_again(tmp_path):
    path, real, calls = tmp_path/'a.txt', os.replace, []
    def held(a, b):
        calls.append(1)
        if len(calls) < 3: raise PermissionError('in use')
        return real(a, b)
    with patch('os.replace', held): write_whole(path, 'new')
    assert path.read_text() == 'new' and len(calls) == 3
    with patch('os.replace', side_effect=PermissionError('in use')), pytest.raises(PermissionError): write_whole(path, 'newer')
    assert path.read_text() == 'new' and left(tmp_path) == ['a.txt']


def test_many_writers_leave_one_whole_file(tmp_path):
    path, texts = tmp_path/'deep'/'a.txt', [f'{k}'*50_000 for k in range(8)]
    threads = [threading.Thread(target=lambda t=t: [write_whole(path, t) for _ in range(5)]) for t in texts]
    for t in threads: t.start()
    for t in threads: t.join()
    assert path.read_text() in texts and left(path.parent) == ['a.txt']


def test_text_and_bytes_go_as_they_are(tmp_path):
    write_whole(tmp_path/'t', 'ä\n\r\n')
    assert (tmp_path/'t').read_bytes() == 'ä\n\r\n'.encode()


def test_a_lock_keeps_another_process_out_until_it_ends(tmp_path):
    path = tmp_path/'a.txt'
    code = f"import sys, time\nfrom dlpractice.whole_files import locked\nwith locked({str(path)!r}):\n    print('held', flush=True)\n    time.sleep(600)"
    other = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == 'held\n'
        with pytest.raises(TimeoutError, match='a.txt has been locked by another program'):
            with locked(path, wait=0.1): pass
    finally:
        other.kill() # however it dies, the lock is free
        other.wait()
    with locked(path, wait=5.): pass
