/* The fuzzing program: libFuzzer's engine around an interpreter that holds the compiled part.
 *
 * The extensions are compiled with coverage counters, whose functions they find in this program. libFuzzer calls
 * a C function of tests/fuzz/targets.pyx for each input; the interpreter is entered only where the broker itself
 * enters it. A failed check is a Python exception: it is printed and the process aborted, so that libFuzzer keeps
 * the input. The target's name comes in GGFAST_FUZZ_TARGET, the way to the modules in PYTHONPATH.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

typedef int (*entry_t)(const uint8_t *, Py_ssize_t); /* 0, or -1 with an exception set */

static entry_t entry;

static void give_up(void)
{
    fflush(stdout);
    PyErr_Print();
    fflush(stderr);
    abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    PyConfig config;
    PyObject *module, *address;
    (void)argc;
    (void)argv;
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0;
    config.write_bytecode = 0;
    if (PyStatus_Exception(Py_InitializeFromConfig(&config)))
        abort();
    PyConfig_Clear(&config);
    module = PyImport_ImportModule("ggfast_fuzz_targets");
    if (module == NULL)
        give_up();
    address = PyObject_CallMethod(module, "entry", "s", getenv("GGFAST_FUZZ_TARGET"));
    if (address == NULL)
        give_up();
    entry = (entry_t)PyLong_AsVoidPtr(address);
    if (entry == NULL)
        give_up();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (entry(data, (Py_ssize_t)size) < 0)
        give_up();
    return 0;
}
