"Claims for the tests. Run as a script: `claims_here.py COMMAND FOLDER …`, in a process that the tests may kill."
import os, signal, sys, time
from pathlib import Path

import torch

from dlpractice.claims import claim, run


@claim('coin-1', rule='Heads is more likely than tails', said_in='nobody', figure='share of heads less share of tails', margin=0.05, kind='more',
       arms=('heads', 'tails'), worlds=('coin', 'other'))
def coin_1(seed, budget, world):
    share = (torch.rand(400) < (0.6 if world == 'coin' else 0.62)).float().mean().item()
    return dict(heads=share, tails=1 - share, threads=torch.get_num_threads())


@claim('coin-2', rule='Slow coins are fair', said_in='nobody', figure='share of heads less a half', margin=0.2, kind='equal', effect=lambda v: v['heads'] - 0.5,
       arms=('heads',), worlds=('coin',), seeds=dict(quick=8))
def coin_2(seed, budget, world):
    "Leaves a mark each time it runs, and may be told to be slow, or to die once."
    (Path(os.environ['MARKS'])/f'{seed}-{os.getpid()}-{time.time_ns()}').touch()
    die = Path(os.environ['MARKS'])/'die'
    if seed == 3 and die.exists():
        if die.read_text() == 'once': die.unlink()
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(float(os.environ.get('SLOW', 0)))
    return dict(heads=(torch.rand(100) < 0.5).float().mean().item())


if __name__ == '__main__':
    what, folder, *rest = sys.argv[1:]
    if what == 'run': print(run(rest[0], 'quick', jobs=2, folder=folder, progress=False))
    if what == 'dask':
        from distributed import Client, LocalCluster
        from joblib import parallel_config
        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
            with parallel_config(backend='dask'): print(run(rest[0], 'quick', folder=folder, progress=False))
            print('workers', len(client.scheduler_info()['workers']), 'tasks', sum(len(o) for o in client.run(lambda dask_worker: list(dask_worker.state.tasks)).values()))
    if what == 'cli':
        from dlpractice.cli import main
        sys.exit(main(['claims', *rest, '--folder', folder]))
