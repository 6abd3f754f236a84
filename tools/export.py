"Exports notebooks into `dlpractice/`: all of them, or those named on the command line."
import os, sys
from pathlib import Path

from nbdev.doclinks import nbdev_export
from nbdev.export import nb_export

root = Path(__file__).resolve().parent.parent

if __name__ == '__main__':
    paths = sys.argv[1:]
    for p in paths: nb_export(p, lib_path=root/'dlpractice')
    if not paths:
        settings = root/'pyproject.toml'
        was, when = settings.read_bytes(), settings.stat()
        nbdev_export.__wrapped__(root/'nbs')
        if settings.read_bytes() == was: os.utime(settings, ns=(when.st_atime_ns, when.st_mtime_ns))   # nbdev writes it anew: nothing to install again
    print('exported', ', '.join(paths) or 'every notebook', 'into dlpractice/')
