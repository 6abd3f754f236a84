"Which lessons use a function: what each page of the API links to. Read from the imports of the notebooks, nothing is run."
import ast, functools, json, re
from pathlib import Path

import pages

nbs = Path(__file__).resolve().parent.parent/'nbs'


@functools.cache
def cells(path):
    "Sources of the code cells of a notebook under nbs/, without what is no Python."
    found = [''.join(o['source']) for o in json.loads((nbs/path).read_text(encoding='utf-8'))['cells'] if o['cell_type'] == 'code']
    return [re.sub(r'^[ \t]*[%!].*$', '', o, flags=re.M) for o in found]


def module(path):
    "The module that a notebook exports to, or None."
    return next((m[1] for o in cells(path) if (m := re.search(r'^#\|\s*default_exp\s+(\w+)', o, re.M))), None)


@functools.cache
def imports(path):
    "(module, name) of all that a notebook imports from dlpractice; the module is '' for names of the top level."
    found = set()
    for code in cells(path):
        try: tree = ast.parse(code)
        except SyntaxError: continue
        for o in ast.walk(tree):
            if isinstance(o, ast.ImportFrom) and o.module and o.module.split('.')[0] == 'dlpractice':
                found |= {(o.module.partition('.')[2], a.name) for a in o.names}
    return found


def lessons_of(
    name,    # of a function or class
    path,    # notebook that defines it
    most=3,  # links
)->list: # lessons under nbs/: those that import the name; else those that import its module, or what is built on that
    "The lessons in which a reader meets `name`, in their order; none for what a lesson defines itself."
    lessons = [o for o in pages.notebooks() if o.startswith('lessons/')]
    mine = module(path)
    if path in lessons or not mine: return []
    found = [o for o in lessons if {(mine, name), ('', name)} & imports(o)]
    return (found or [o for o in lessons if mine in below(o)])[:most]


@functools.cache
def below(path):
    "The modules that a notebook imports, and all that they import in turn."
    homes = {module(o): o for o in pages.notebooks()}
    found, todo = set(), {m for m, _ in imports(path)}
    while todo:
        m = todo.pop()
        if m in found or m not in homes: continue
        found.add(m)
        todo |= {o for o, _ in imports(homes[m])}
    return found


@functools.cache
def title(path):
    "The first heading of a notebook."
    text = ''.join(next(o for o in json.loads((nbs/path).read_text(encoding='utf-8'))['cells'] if o['cell_type'] == 'markdown')['source'])
    return re.match(r'# (.*)', text)[1]
