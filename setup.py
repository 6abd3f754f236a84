"Hands `settings.ini` to setuptools, and puts the lessons into the wheel."
from configparser import ConfigParser
from pathlib import Path
from shutil import copy2

from setuptools import setup
from setuptools.command.build_py import build_py

root = Path(__file__).parent
cfg = ConfigParser()
cfg.read(root/'settings.ini', encoding='utf-8')
cfg = cfg['DEFAULT']


def lines(key):
    "The requirements listed under `key`."
    return [o.strip() for o in cfg[key].splitlines() if o.strip()]


def lesson_files():
    "(source, path inside `dlpractice/lessons`) of all that the pages need to work once installed."
    nbs = root/'nbs'
    for p in sorted([*nbs.rglob('*.ipynb'), *(p for p in nbs.rglob('runs/*') if p.suffix in ('.json', '.npz', '.py'))]):
        rel = p.relative_to(nbs)
        if not any(part[0] in '._' for part in rel.parts): yield p, rel
    for p in sorted((root/'claims'/'results').glob('*.json')): yield p, Path('claims')/'results'/p.name


class BuildWithLessons(build_py):
    "`build_py` that also copies notebooks, stored runs and judged claims into the package."
    def run(self):
        super().run()
        if self.editable_mode: return   # a checkout already has them, under nbs/
        for src, rel in lesson_files():
            dest = Path(self.build_lib)/'dlpractice'/'lessons'/rel
            dest.parent.mkdir(parents=True, exist_ok=True)
            copy2(src, dest)


extras = {k: lines(f'{k}_requirements') for k in ('lab', 'scale', 'dev')}
setup(version=cfg['version'], install_requires=lines('requirements'), extras_require=extras, cmdclass={'build_py': BuildWithLessons})
