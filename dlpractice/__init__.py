"Rules of thumb of practical deep learning, as instruments for any PyTorch model."
from importlib import import_module as _import_module

__version__ = "0.1.0"

# name -> the module that holds it; imported on first use, so that `import dlpractice` costs next to nothing
_homes = {name: home for home, names in {
    'errors': 'ArgumentError CheckpointError DataError DlpracticeError ShapeError TrainingError',
    'plots': 'curve show_images',
    'snapshots': 'seeded unchanged',
    'loss_planes': 'LossLine LossPlane Trajectory barrier loss_line loss_plane roughness sharpness',
    'shapes': 'ShapeAssert check_shape shaped',
    'layer_shapes': 'ShapeTrace asserting remove_asserts trace_shapes',
    'broadcasting': 'allow broadcast_guard max_keep mean_keep min_keep std_keep sum_keep',
    'splits': 'check_leak split_by_group split_random split_stratified',
    'data': 'Batches Loaders channel_stats digits glyph_loaders glyphs has_real image_folder image_loaders real',
    'metrics': 'Mean accuracy confusion error top_k',
    'training': 'Checkpoint Learner',
    'hessian': 'Curvature curvature hessian_directions',
    'lr_finder': 'RangeTest lr_range_test',
    'resizing': 'ConcatPoolHead FillBatches GlobalPoolHead ProgressiveResize SizePlan SpatialPyramidHead best_size_range flops port_weights recalibrate_batchnorm resize_batch size_multiple',
    'augment': 'Augment AugmentBatches tta',
    'augmentations': 'Affine ColourJitter CutMix Cutout Flip Mixup Noise ResizedCrop Rotate',
    'mixing': 'PairLoss',
    'param_groups': 'add_groups discriminative distance_moved freeze freeze_batchnorm layer_groups show_groups unfreeze',
    'optimizers': 'Optimizer effective_rate',
    'heads': 'find_head replace_head',
    'pretrained_nets': 'check_norm norm_stats pretrained',
    'exercises': 'check hint progress quiz solution solutions',
    'explorers': 'Explorer Frame Scene explorer',
    'schedules': 'CycleSnapshots Schedule cycle_ends exponential flat_then_cosine momentum_cycle one_cycle restarts triangular warmup',
    'widgets_schedules': 'schedule_explorer',
    'widgets': 'descent_explorer model_at plane_explorer rate_explorer shape_explorer',
    'widgets_resizing': 'resize_explorer',
    'widgets_augment': 'augment_explorer',
    'widgets_param_groups': 'groups_explorer',
    'widgets_optimizers': 'optimizer_explorer',
}.items() for name in names.split()}
__all__ = list(_homes)


def __getattr__(name):
    if name in _homes:
        value = getattr(_import_module(f'.{_homes[name]}', __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__(): return sorted({*globals(), *_homes})
