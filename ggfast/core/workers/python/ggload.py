"""Importing the handler's module without the import system's Python code, where nothing can differ.

The import system is written in Python: running it makes about 250 KB of the image a worker's own, for one file whose
place is known. A deployment compiles packages to byte code that needs no check (PEP 552 unchecked hashes), so for a
plain module `<code>/<name>.py` with such a file beside it the result is the same. Anything else is left to `import`.
"""

import _imp
import marshal
import os
import sys
from importlib._bootstrap import ModuleSpec
from importlib._bootstrap_external import SourceFileLoader
from importlib.util import MAGIC_NUMBER

_UNCHECKED = b"\x01\0\0\0"
_HEADER_BYTES = 16
_BYTE_CODE_MAX = 16 * 1024 * 1024  # larger than any source a package may hold

_module = type(sys)


def load(directory, name):
    """The module `name` of `directory`, executed and in sys.modules; None to say that `import` must decide."""
    if name in sys.modules or not name.isidentifier():
        return None
    path = "%s/%s.py" % (directory, name)
    cached = "%s/__pycache__/%s.%s.pyc" % (directory, name, sys.implementation.cache_tag)
    source = name + ".py"
    try:
        for entry in os.listdir(directory):
            if entry == name or (entry.startswith(name + ".") and entry != source):
                return None  # a package or an extension module of that name comes first
        fd = os.open(cached, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = os.read(fd, _BYTE_CODE_MAX)
    finally:
        os.close(fd)
    if data[:4] != MAGIC_NUMBER or data[4:8] != _UNCHECKED or len(data) == _BYTE_CODE_MAX or not os.path.isfile(path):
        return None
    code = marshal.loads(memoryview(data)[_HEADER_BYTES:])
    _imp._fix_co_filename(code, path)  # it was compiled where the deployment was prepared
    module = _module(name)
    loader = SourceFileLoader(name, path)
    spec = ModuleSpec(name, loader, origin=path)
    spec._set_fileattr = True
    spec._cached = cached
    module.__spec__ = spec
    module.__loader__ = loader
    module.__file__ = path
    module.__cached__ = cached
    module.__package__ = ""
    sys.modules[name] = module
    try:
        exec(code, module.__dict__)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return sys.modules[name]
