"Which module stands on which floor: it imports only from lower ones, never from its own."

floors = {
    0: ['errors'],
    1: ['plots', 'snapshots', 'schedules', 'glyph_fonts', 'splits', 'runs'],
    2: ['shapes', 'data', 'metrics', 'history', 'checkpoints', 'optimizers', 'param_groups', 'resizing'],
    3: ['training'],
    4: ['lr_finder', 'landscape', 'augment'],
    5: ['fine_tuning'],
    6: ['claims', 'exercises', 'widgets'],
    7: ['cli'],
}
floor = {module: n for n, modules in floors.items() for module in modules}
