"""The experiment of `schedules.py` on a fourth task, with longer training.

Added after the other three had been seen, and before this one was run: their CNN is trained for only 192 iterations and is still learning
at the end. Here it learns ten letters of the middle level of difficulty from 4,000 pictures of 16×16, in batches of 64, for 8 epochs.
Net, optimizer, arms, sweeps, seeds and what is stored are those of `schedules.py`, so `results` has the same form, with one task."""
import time
from functools import lru_cache, partial

import torch

import schedules
from dlpractice.claims_schedules import CODE, DRAWN
from dlpractice.runs import code_hashes, save_run
from dlpractice.small_tasks import cnn, letters_task


@lru_cache(1)
def long_task(world, seed): return letters_task(seed, train=4000), partial(cnn, 1, 10), 8, 64, None, None


if __name__ == '__main__':
    torch.set_num_threads(1)
    code = code_hashes('schedules.py', 'schedules_long.py', 'dlpractice.claims_schedules:arms', *CODE)
    start, cpu = time.time(), time.process_time()
    schedules.schedule_task = long_task # where the functions there look up their task
    task = schedules.task_results('long')
    print(task['cut'], {a: v['test_error'] for a, v in task['arms'].items()}, flush=True)
    save_run('schedules_long.json', dict(settings=dict(optimizer='SGD', momentum=0.9, rates=5, factor=2.5), tasks={'letters, CNN, longer': task},
             drawn={a: DRAWN[b] for a, b in schedules.NAMES.items()}, cpu_seconds=round(time.process_time() - cpu)), code, list(range(schedules.SEEDS)), time.time() - start)
