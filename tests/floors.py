"Which module stands on which floor: it imports only from lower ones, never from its own."
from pathlib import Path

package = Path(__file__).resolve().parent.parent/'dlpractice'
floors = {
    0: ['errors', 'whole_files'],
    1: ['plots', 'snapshots', 'glyph_fonts', 'splits', 'runs', 'shape_patterns', 'broadcasting',
        'progress_store', 'guarded_calls', 'answer_boxes', 'answers',
        'intervals', 'rate_sweeps', 'claim_list', 'execution_order', 'layer_stages', 'frozen_norms',
        'size_costs', 'pooling_heads', 'weight_porting', 'affine_maps', 'crops', 'pixel_changes', 'mixing'],
    2: ['shape_faults', 'data', 'metrics', 'history', 'checkpoints', 'optimizers', 'schedule_functions', 'schedule_targets', 'param_groups', 'resizing', 'lanczos',
        'directions', 'loss_shortcuts', 'judging', 'quizzes', 'explorers',
        'trials', 'claim_plots', 'augmentations', 'heads'],
    3: ['training', 'schedules', 'shape_checkers', 'hessian', 'loss_evaluation'],
    4: ['lr_finder', 'loss_planes', 'augment', 'layer_shapes', 'small_tasks', 'pretrained_nets'],
    5: ['stacked_nets', 'one_cycle', 'fine_tuning', 'shapes', 'landscape'],
    6: ['claims', 'exercises', 'widgets', 'transfer_trials'],
    7: ['claim_commands', 'claim_board'] + [p.stem for kind in ('claims', 'exercises', 'widgets') for p in sorted(package.glob(f'{kind}_*.py'))], # one module for each family or lesson
    8: ['cli'],
}
floor = {module: n for n, modules in floors.items() for module in modules}
