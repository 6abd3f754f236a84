"On PYTHONPATH while notebooks are tested: nothing may connect beyond this machine, in child processes either."
import socket

_connect, _connect_ex, _getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo


def _refuse(host): raise OSError(f'tests run without a network, and something asked for {host!r}')


def _local(host): return host in (None, '', 'localhost', b'localhost', '::1', '0.0.0.0', '::') or str(host).startswith('127.')


def _guard(method):
    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _local(address[0]): _refuse(address[0])
        return method(self, address)
    return connect


def getaddrinfo(host, *args, **kwargs):
    if not _local(host): _refuse(host)
    return _getaddrinfo(host, *args, **kwargs)


socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo = _guard(_connect), _guard(_connect_ex), getaddrinfo
