"Exports notebooks into `dlpractice/`: all of them, or those named on the command line."
import sys
from pathlib import Path

from nbdev.doclinks import nbdev_export
from nbdev.export import nb_export

root = Path(__file__).resolve().parent.parent

if __name__ == '__main__':
    paths = sys.argv[1:]
    for p in paths: nb_export(p, lib_path=root/'dlpractice')
    if not paths: nbdev_export.__wrapped__(root/'nbs')
    print('exported', ', '.join(paths) or 'every notebook', 'into dlpractice/')
