"Prints every runtime requirement of `settings.ini` at its lower bound, as a constraints file for pip."
import re
from configparser import ConfigParser
from pathlib import Path

root = Path(__file__).resolve().parent.parent


def oldest():
    "The lines of the file, such as `torch==2.4.0`."
    cfg = ConfigParser()
    cfg.read(root/'settings.ini', encoding='utf-8')
    found = [re.fullmatch(r'([\w.-]+)>=([\d.]+)', o.strip()) for o in cfg['DEFAULT']['requirements'].split()]
    if not all(found): raise SystemExit('settings.ini: a requirement has no lower bound of the form name>=version')
    return [f'{m[1]}=={m[2]}' for m in found]


if __name__ == '__main__': print('\n'.join(oldest()))
