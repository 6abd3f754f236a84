"""A random crop, a flip and normalising: a batch at once, and torchvision v2 picture by picture in one process.

256 RGB pictures of 64 × 64 bytes, channels last in memory and channels first, and 64 of 256 × 256 brought to 224 × 224. Interleaved, at least five rounds; one thread.
Run: `python benchmarks/augment.py`."""
import torch
from common import figure, figures_table, median, one_thread, paired, ratio, table

CASES = [('64 × 64', 'channels last', 256, 64, 64, 3.), ('64 × 64', 'channels first', 256, 64, 64, 2.3), ('256 × 256 to 224', 'channels last', 64, 256, 224, 1.5), ('256 × 256 to 224', 'channels first', 64, 256, 224, 1.5)]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main(quick=False):
    "Figures: times as many pictures a second as torchvision, which gets them in the same layout, and in channels first."
    from torchvision.transforms import v2
    from dlpractice.augment import Augment, Flip, ResizedCrop
    one_thread()
    figures, rows = [], []
    for size, layout, n, side, out, target in CASES:
        first = torch.randint(256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        x = first.contiguous(memory_format=torch.channels_last) if layout == 'channels last' else first
        item = v2.Compose([v2.RandomResizedCrop(out), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
        batch = Augment(ResizedCrop(out), Flip(), normalise=(MEAN, STD))
        ways = {'dlpractice': lambda: lambda: batch(x), 'torchvision': lambda: lambda: torch.stack([item(p) for p in x]), 'torchvision, channels first': lambda: lambda: torch.stack([item(p) for p in first])}
        times = paired(ways, repeats=5 if quick else 9, warmup=1)
        mid, low, high = ratio(times, 'torchvision', 'dlpractice')
        other = ratio(times, 'torchvision, channels first', 'dlpractice')[0]
        figures.append(figure(f'crop, flip, normalise, {size}, {layout}: pictures per second over torchvision v2 per item', mid, target, 'x', at_least=True,
                              note=f'{low:.2f} to {high:.2f} (quartiles); {other:.2f} over torchvision with channels first'))
        rows += [[size, layout, way, f'{n/median(times[way]):,.0f}'] for way in ways]
    print(table(['pictures', 'memory', 'way', 'pictures per second'], rows))
    print(f'\n{figures_table(figures)}')
    return figures


if __name__ == '__main__': main()
