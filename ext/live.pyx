"""What of the compiled part is alive: objects by type, and blocks of memory. Only debug builds have this module.

`watch()` puts a counter into the allocation slots of every extension type of ggfast._ext that is loaded; call it
before anything is made, for what was made earlier is subtracted when it goes. No other source knows of this one.
The blocks are counted by ext/live.h, which debug builds include in every module.
"""

import ctypes
import sys

cdef extern from *:
    """
    #define GGFAST_KINDS 256 /* far more than there are types */

    static struct {
        PyTypeObject *type;
        allocfunc alloc;
        freefunc gone;
        long count;
    } ggfast_kinds[GGFAST_KINDS];
    static int ggfast_known = 0;

    static int ggfast_kind(PyTypeObject *type)
    {
        int kind = ggfast_known;
        while (--kind >= 0 && ggfast_kinds[kind].type != type) {}
        return kind;
    }

    static PyObject *ggfast_alloc(PyTypeObject *type, Py_ssize_t items)
    {
        int kind = ggfast_kind(type);
        PyObject *made = kind < 0 ? PyType_GenericAlloc(type, items) : ggfast_kinds[kind].alloc(type, items);
        if (made != NULL && kind >= 0)
            ggfast_kinds[kind].count++;
        return made;
    }

    static void ggfast_gone(void *object)
    {
        PyTypeObject *type = Py_TYPE((PyObject *)object);
        int kind = ggfast_kind(type);
        if (kind >= 0) {
            ggfast_kinds[kind].count--;
            ggfast_kinds[kind].gone(object);
        } else if (PyType_IS_GC(type)) { /* a class in Python that inherited the slot */
            PyObject_GC_Del(object);
        } else {
            PyObject_Free(object);
        }
    }

    static void ggfast_watch(PyObject *object)
    {
        PyTypeObject *type = (PyTypeObject *)object;
        if (ggfast_kind(type) >= 0 || ggfast_known == GGFAST_KINDS)
            return;
        ggfast_kinds[ggfast_known].type = type;
        ggfast_kinds[ggfast_known].alloc = type->tp_alloc == ggfast_alloc ? PyType_GenericAlloc : type->tp_alloc;
        ggfast_kinds[ggfast_known].gone = type->tp_free != ggfast_gone ? type->tp_free
                                          : PyType_IS_GC(type)         ? PyObject_GC_Del
                                                                       : PyObject_Free;
        ggfast_known++;
        type->tp_alloc = ggfast_alloc;
        type->tp_free = ggfast_gone;
    }

    static PyObject *ggfast_type(int kind) { return Py_NewRef((PyObject *)ggfast_kinds[kind].type); }
    static long ggfast_count(int kind) { return ggfast_kinds[kind].count; }
    """
    int ggfast_known
    void ggfast_watch(object)
    object ggfast_type(int)
    long ggfast_count(int)


cdef str PACKAGE = "ggfast._ext."
cdef dict counters = {}      # module name -> its ggfast_live_blocks


def watch() -> None:
    """Count objects and blocks of every module of ggfast._ext that is loaded now; call again for later ones."""
    for name, module in list(sys.modules.items()):
        if not name.startswith(PACKAGE) or name in counters or name == __name__:
            continue
        try:
            counters[name] = ctypes.c_long.in_dll(ctypes.CDLL(module.__file__), "ggfast_live_blocks")
        except ValueError:
            counters[name] = ctypes.c_long(0)    # it takes no memory of its own: the compiler left the counter out
        for value in vars(module).values():
            # Classes written in Python, and their instances, are the garbage collector's own to list.
            if isinstance(value, type) and value.__module__ == name and not value.__flags__ & HEAP_TYPE:
                ggfast_watch(value)


cdef enum:
    HEAP_TYPE = 1 << 9


def live_counts() -> dict:
    """Instances by type, such as `session.Session`, and `blocks`: memory taken with malloc. Zeros are left out."""
    cdef int kind
    counts = {}
    for kind in range(ggfast_known):
        if ggfast_count(kind):
            found = ggfast_type(kind)
            counts[f"{found.__module__.removeprefix(PACKAGE)}.{found.__name__}"] = ggfast_count(kind)
    blocks = sum(counter.value for counter in counters.values())
    if blocks:
        counts["blocks"] = blocks
    return counts
