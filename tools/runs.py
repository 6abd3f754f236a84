"""Makes the stored runs: each script `nbs/**/runs/name.py` writes `name.json` beside it.

`runs.py`: those that are missing, or whose code has changed. `runs.py NAME …`: the named ones."""
import subprocess, sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent


def stale(script):
    "Is the script's result missing, or older than its code?"
    from dlpractice.runs import Run
    result = script.with_suffix('.json')
    return not result.exists() or bool(Run(result).changed())


if __name__ == '__main__':
    scripts = {p.stem: p for p in sorted((root/'nbs').rglob('runs/*.py'))}
    names = sys.argv[1:] or [n for n, p in scripts.items() if stale(p)]
    unknown = set(names) - set(scripts)
    if unknown: sys.exit(f'No such run: {", ".join(sorted(unknown))}. There is: {", ".join(scripts)}.')
    for n in names:
        print(f'making {scripts[n].with_suffix(".json").relative_to(root)} …', flush=True)
        subprocess.run([sys.executable, scripts[n].name], cwd=scripts[n].parent, check=True)
    print('stored runs made:', ', '.join(names) or 'none was stale')
