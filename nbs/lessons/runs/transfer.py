"""What a net pretrained on Latin letters is worth for other pictures, and how it is best put to use.

The trials are those of `dlpractice.transfer_trials`, whose notebook says how they are made. The net: `pretrained('latin')`, trained on lower-case Latin
letters, light on dark, in the DejaVu fonts. The targets: `near`, lower-case Greek letters without look-alikes of the Latin ones, in the STIX fonts, of which it has
seen none; `shifted`, the same, dark on light; `clothing`, photos of ten kinds of clothes, in grey, 32 pixels wide (only with `real('clothing')`; no photo is stored).
With 20 pictures per class to train on, and on `near` with 5 and 100, too. Each seed has its own training pictures (of letters also its own to choose by and to
test on), fresh heads and order of batches. The pretrained net is one and the same for all.

The arms, all AdamW (weight decay 0.01), batches of 32, a rate that rises and falls (`up_and_down`), as many steps as `STEPS` says:
- `scratch`: fresh weights; every 100 steps it is validated, and the best look counts, so that training is stopped where it no longer helps;
- `features`: the body frozen, with BatchNorm in evaluation mode; the head alone learns;
- `one rate`: everything, from a fresh head, at one rate;
- `discriminative`: the same, each of the five groups (head and four stages) at a rate smaller than the next one's by 2.6; `factor 1.5`, `factor 5`, `factor 10` with another factor;
- `head first`: the head of `features`, then everything as in `discriminative`;
- `gradual`: from a fresh head, a group more after each fifth of the steps, rates as in `discriminative`; the statistics of BatchNorm go on in closed groups, too;
- `features, wrong` and `discriminative, wrong`: as their namesakes, on pixels in [0, 1] that nobody normalised.
Every arm gets its rate by validation, for each seed anew.

Stored in `results`: `settings`; `cells`: {'near/20': {arm: dict(rates, valid (per seed a list over rates), test (the same), at_edge (seeds whose rate is the first or last))}},
with `moved` in those arms that train everything (per seed, at the chosen rate, how far each group moved relative to its length, first stage to head), and `best_step` of scratch;
`filters` (near/20, the first seed): those of the first layer, 3×3, `before`, and after `one rate` and `discriminative`; `classes`: how many in each world; `cpu_seconds` of all."""
import json, os, time
from pathlib import Path

import numpy as np
import torch

from dlpractice.data import has_real
from dlpractice.runs import code_hashes, save_run
from dlpractice.transfer_trials import STEPS, latin_net, target, transfer_cell

SEEDS = (0, 1, 2, 3, 4)
THREE = 'one rate', 'discriminative', 'head first'
MORE = *THREE, 'gradual', 'factor 1.5', 'factor 5', 'factor 10'
CELLS = {('near', 20): MORE, ('shifted', 20): MORE, ('near', 5): THREE, ('near', 100): THREE, ('clothing', 20): THREE[1:]}
CODE = ('dlpractice.data:glyphs', *(f'dlpractice.pretrained_nets:{n}' for n in ('_pretrain', 'glyph_net', 'up_and_down')), 'dlpractice.stacked_nets:NetStack', 'dlpractice.stacked_nets:adamw_step',
        *(f'dlpractice.transfer_trials:{n}' for n in ('target', 'head_trials', 'tuned_trials', 'scratch_trials', 'transfer_cell')))


def plain(o):
    "Lists and numbers with four digits."
    if isinstance(o, dict): return {k: plain(v) for k, v in o.items()}
    if isinstance(o, (list, tuple)): return [plain(v) for v in o]
    return round(o, 4) if isinstance(o, float) else o


def joined(rows):
    "Seeds side by side."
    out = {}
    for arm, first in rows[0].items():
        each = [r[arm] for r in rows]
        out[arm] = dict(rates=first['rates'], valid=[e['valid'] for e in each], test=[e['test'] for e in each], at_edge=sum(int(np.argmax(e['valid'])) in (0, len(e['valid']) - 1) for e in each))
        out[arm] |= {k: [e[k] for e in each] for k in ('moved', 'best_step') if k in first}
    return out


def main():
    torch.set_num_threads(1)
    start, path = time.time(), Path('transfer.part')
    code = code_hashes('transfer.py', *CODE)
    done = json.loads(path.read_text()) if path.exists() else {}
    cells = {c: arms for c, arms in CELLS.items() if c[0] != 'clothing' or has_real('clothing')}
    for (world, k), arms in cells.items():
        for seed in SEEDS:
            if (name := f'{world}/{k}/{seed}') in done: continue
            before = time.process_time()
            found = transfer_cell(world, k, seed, arms, wrong=(world, k) == ('near', 20))
            done[name] = dict(arms=plain(found), cpu=round(time.process_time() - before, 1))
            path.with_suffix('.tmp').write_text(json.dumps(done))
            os.replace(path.with_suffix('.tmp'), path)
            print(name, done[name]['cpu'], 's', {a: max(v['valid']) for a, v in done[name]['arms'].items()}, flush=True)
    rows = {c: [done[f'{c[0]}/{c[1]}/{s}']['arms'] for s in SEEDS] for c in cells}
    filters = {a: rows['near', 20][0][a]['filters'] for a in ('one rate', 'discriminative')}
    save_run('transfer.json', dict(settings=dict(steps={str(k): v for k, v in STEPS.items()}, parameters=sum(p.numel() for p in latin_net().parameters())),
        cells={f'{w}/{k}': joined(r) for (w, k), r in rows.items()}, classes={w: target(w, 5, 0).classes for w in {w for w, _ in cells}},
        filters=dict(before=plain(latin_net().stage1[0].weight[:, 0].tolist()), **filters), cpu_seconds=round(sum(d['cpu'] for d in done.values()))),
        code=code, seeds=list(SEEDS), seconds=time.time() - start)
    path.unlink()


if __name__ == '__main__': main()
