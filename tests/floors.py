"Which module stands on which floor: it imports only from lower ones, never from its own."

floors = {
    0: ['errors'],
    1: ['plots', 'snapshots', 'schedules', 'glyph_fonts', 'splits', 'runs', 'shape_patterns', 'broadcasting',
        'progress_store', 'guarded_calls', 'answer_boxes', 'answers'],
    2: ['shape_faults', 'data', 'metrics', 'history', 'checkpoints', 'optimizers', 'param_groups', 'resizing', 'lanczos',
        'directions', 'judging', 'quizzes'],
    3: ['training', 'shape_checkers', 'hessian', 'loss_evaluation'],
    4: ['lr_finder', 'loss_planes', 'augment', 'layer_shapes'],
    5: ['fine_tuning', 'shapes', 'landscape'],
    6: ['claims', 'exercises', 'widgets'],
    7: ['exercises_shapes', 'exercises_lr_range_test'],
    8: ['cli'],
}
floor = {module: n for n, modules in floors.items() for module in modules}
