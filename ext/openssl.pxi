# The few functions of libssl and libcrypto that TLS transports need, found in the very libraries Python's ssl
# module has loaded. Neither headers nor a link-time dependency: prototypes and numbers stand here. They are the
# same in OpenSSL 1.1.1, 3.x and what keeps to their interface.

cdef extern from "<dlfcn.h>":
    void* dlopen(const char*, int)
    void* dlsym(void*, const char*)
    int RTLD_LAZY, RTLD_NOLOAD

cdef enum:
    SSL_ERROR_WANT_READ = 2
    SSL_ERROR_WANT_WRITE = 3
    SSL_ERROR_ZERO_RETURN = 6
    SSL_CTRL_MODE = 33
    SSL_CTRL_SET_SESS_CACHE_MODE = 44
    SSL_CTRL_SET_MAX_CERT_LIST = 51
    SSL_MODE_RELEASE_BUFFERS = 0x10
    BIO_TYPE_SOURCE_SINK = 0x0400
    BIO_FLAGS_READ_AGAIN = 0x01 | 0x08       # BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY
    BIO_FLAGS_WRITE_AGAIN = 0x02 | 0x08
    BIO_FLAGS_AGAIN = 0x0F
    BIO_CTRL_FLUSH = 11
    X509_V_OK = 0

cdef struct Library:
    void* (*SSL_new)(void*) noexcept
    void (*SSL_free)(void*) noexcept
    void (*SSL_set_accept_state)(void*) noexcept
    void (*SSL_set_bio)(void*, void*, void*) noexcept
    int (*SSL_do_handshake)(void*) noexcept
    int (*SSL_read)(void*, void*, int) noexcept
    int (*SSL_write)(void*, const void*, int) noexcept
    int (*SSL_shutdown)(void*) noexcept
    int (*SSL_get_error)(const void*, int) noexcept
    long (*SSL_ctrl)(void*, int, long, void*) noexcept
    long (*SSL_get_verify_result)(const void*) noexcept
    void* (*SSL_get1_peer_certificate)(const void*) noexcept
    long (*SSL_CTX_ctrl)(void*, int, long, void*) noexcept
    unsigned long (*SSL_CTX_get_options)(const void*) noexcept
    int (*SSL_CTX_get_verify_mode)(const void*) noexcept
    int (*SSL_CTX_set_ciphersuites)(void*, const char*) noexcept
    int (*i2d_X509)(const void*, unsigned char**) noexcept
    void (*X509_free)(void*) noexcept
    const char* (*X509_verify_cert_error_string)(long) noexcept
    void (*ERR_clear_error)() noexcept
    unsigned long (*ERR_peek_last_error)() noexcept
    const char* (*ERR_reason_error_string)(unsigned long) noexcept
    void* (*BIO_meth_new)(int, const char*) noexcept
    int (*BIO_meth_set_read)(void*, int (*)(void*, char*, int) noexcept) noexcept
    int (*BIO_meth_set_write)(void*, int (*)(void*, const char*, int) noexcept) noexcept
    int (*BIO_meth_set_ctrl)(void*, long (*)(void*, int, long, void*) noexcept) noexcept
    void* (*BIO_new)(const void*) noexcept
    void (*BIO_set_init)(void*, int) noexcept
    void (*BIO_set_flags)(void*, int) noexcept
    void (*BIO_clear_flags)(void*, int) noexcept

# In the order of the fields; "|" separates the names of different versions.
NAMES = (
    "SSL_new SSL_free SSL_set_accept_state SSL_set_bio SSL_do_handshake SSL_read SSL_write SSL_shutdown SSL_get_error "
    "SSL_ctrl SSL_get_verify_result SSL_get1_peer_certificate|SSL_get_peer_certificate SSL_CTX_ctrl "
    "SSL_CTX_get_options SSL_CTX_get_verify_mode SSL_CTX_set_ciphersuites i2d_X509 X509_free "
    "X509_verify_cert_error_string ERR_clear_error ERR_peek_last_error ERR_reason_error_string BIO_meth_new "
    "BIO_meth_set_read BIO_meth_set_write BIO_meth_set_ctrl BIO_new BIO_set_init BIO_set_flags BIO_clear_flags"
).split()

VERIFY_MODES = (0, 1, 3)    # of CERT_NONE, CERT_OPTIONAL, CERT_REQUIRED: SSL_VERIFY_PEER 1, FAIL_IF_NO_PEER_CERT 2

cdef Library lib
cdef void* wire_method = NULL            # the BIO_METHOD of all transports


cdef str load_library(path):
    """Fill `lib` from the library at `path` (None: the program itself); why that cannot be, or None."""
    cdef void** field = <void**> &lib
    cdef void* handle
    if sizeof(Library) != len(NAMES) * sizeof(void*):
        return "the table of its functions does not match their names"
    encoded = os.fsencode(path) if path is not None else None
    handle = dlopen(<const char*> encoded if encoded is not None else NULL, RTLD_LAZY | RTLD_NOLOAD)
    if handle == NULL:
        return f"the ssl module's library {path} cannot be opened again"
    for names in NAMES:
        field[0] = NULL
        for name in names.split("|"):
            if field[0] == NULL:
                field[0] = dlsym(handle, name.encode("ascii"))
        if field[0] == NULL:
            return f"the ssl module's library has no {names}"
        field += 1
    return None


cdef void* context_pointer(context):
    """The SSL_CTX of an ssl.SSLContext: the first field behind the object's header."""
    return (<void**> (<char*> <PyObject*> context + sizeof(PyObject)))[0]


cdef bint is_context(context):
    """Whether what `context_pointer` finds says the same as the context."""
    cdef void* found = context_pointer(context)
    if found == NULL:
        return False
    return (lib.SSL_CTX_get_options(found) & 0xFFFFFFFF == context.options & 0xFFFFFFFF
            and lib.SSL_CTX_get_verify_mode(found) & 3 == VERIFY_MODES[int(context.verify_mode)])


cdef str make_method():
    """Make `wire_method`; why that cannot be, or None."""
    global wire_method
    wire_method = lib.BIO_meth_new(BIO_TYPE_SOURCE_SINK | 127, "ggfast wire")
    if wire_method == NULL:
        return "the ssl module's library makes no new kind of BIO"
    lib.BIO_meth_set_read(wire_method, bio_read)
    lib.BIO_meth_set_write(wire_method, bio_write)
    lib.BIO_meth_set_ctrl(wire_method, bio_control)
    return None


cdef str start_library():
    """Everything once; why TLS cannot be ours, or None."""
    if sys.implementation.name != "cpython":
        return f"this is {sys.implementation.name}, whose SSLContext has another layout"
    problem = load_library(getattr(_ssl, "__file__", None))
    if problem is not None:
        return problem
    plain, strict = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    strict.verify_mode = ssl.CERT_REQUIRED
    strict.options |= ssl.OP_NO_TICKET
    if strict.options == plain.options or not is_context(plain) or not is_context(strict):
        return "this Python keeps the context of its ssl module in another place"
    return make_method()
