"How many pictures of letters a second the glyph world draws, on one thread."
from common import figure, figures_table, median, number, one_thread, paired, table

TARGETS = {32: 50_000, 64: 20_000}
SHOWN = {8: None, 128: None} # no target


def main(quick=False):
    "Print the table; return the figures."
    one_thread()
    try: from dlpractice.data import glyphs
    except ImportError as e:
        figures = [figure(f'glyphs, {size} px', None, t, 'images/s', at_least=True, note=str(e)) for size, t in TARGETS.items()]
        print(figures_table(figures))
        return figures
    rounds, figures, rows = 5 if quick else 9, [], []
    counts = {size: min(20_000, 20_000*32*32//size**2) for size in (*TARGETS, *SHOWN)}
    for size, n in counts.items(): assert len(glyphs(n, size=size, seed=0).images) == n
    def way(size, n, **kw): # a new seed each time, so that nothing kept from the last call can help
        seeds = iter(range(1, 10**6))
        return lambda: (lambda seed=next(seeds): glyphs(n, size=size, seed=seed, **kw).images)
    ways = {(size, kind): way(size, n, **kw) for size, n in counts.items()
            for kind, kw in (('default', {}), ('colour', dict(colour=True)), ('hard', dict(level='hard'))) if kind == 'default' or size in TARGETS}
    times = paired(ways, rounds, warmup=1)
    for (size, kind), t in times.items():
        n = counts[size]
        rate = n/median(t)
        rows.append([f'{size} px', kind, f'{n:,}', number(rate), number(n/max(t)), number(n/min(t))])
        if kind == 'default' and size in TARGETS:
            figures.append(figure(f'glyphs, {size} px, uint8', rate, TARGETS[size], 'images/s', at_least=True,
                                  note=f'median of {rounds} calls of {n:,} pictures'))
    print('Calls of `glyphs(n, size=...)`, a new seed each, one thread, fonts already drawn into the atlas.\n')
    print(table(['size', 'kind', 'pictures per call', 'images/s, median', 'slowest', 'fastest'], rows) + '\n')
    print(figures_table(figures))
    return figures


if __name__ == '__main__': main()
