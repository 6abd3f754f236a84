"Rules of thumb of practical deep learning, as instruments for any PyTorch model."
from importlib import import_module as _import_module

__version__ = "0.1.0"

# name -> the module that holds it; imported on first use, so that `import dlpractice` costs next to nothing
_homes = {
    'ShapeError': 'errors', 'DataError': 'errors', 'TrainingError': 'errors',
    'unchanged': 'snapshots', 'seeded': 'snapshots',
    'Learner': 'training',
    'lr_range_test': 'lr_finder',
}
__all__ = list(_homes)


def __getattr__(name):
    if name in _homes:
        value = getattr(_import_module(f'.{_homes[name]}', __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__(): return sorted({*globals(), *_homes})
