# The functions of _masking.py for compiled code, which calls these instead.
# What they read and write is checked against the sizes of the objects.

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint32_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /* Words are read and written by memcpy, since neither side is aligned;
       compilers make single instructions of that, for several words at once, as
       long as they know that source and target are apart, or the same. */
    #define TRIO_WS_XOR(target, source)                         \\
        unsigned char bytes[8];                                 \\
        uint64_t mask, word;                                    \\
        Py_ssize_t i, whole = size & ~(Py_ssize_t)7;            \\
        for (i = 0; i < 8; i++)                                 \\
            bytes[i] = (unsigned char)(key >> 8 * (i & 3));     \\
        memcpy(&mask, bytes, 8);                                \\
        for (i = 0; i < whole; i += 8) {                        \\
            memcpy(&word, source + i, 8);                       \\
            word ^= mask;                                       \\
            memcpy(target + i, &word, 8);                       \\
        }                                                       \\
        for (; i < size; i++)                                   \\
            target[i] = (char)(source[i] ^ bytes[i & 3]);

    /* Wider words where the processor has them, which is known when the module is
       loaded; that takes the dynamic loader of glibc. */
    #define TRIO_WS_WIDER
    #if defined(__x86_64__) && defined(__GLIBC__) && defined(__has_attribute)
    #if __has_attribute(target_clones)
    #undef TRIO_WS_WIDER
    #define TRIO_WS_WIDER __attribute__((target_clones("avx2", "default")))
    #endif
    #endif

    /* Which MSVC has in C11 and later alone, and that isn't what it is called with. */
    #ifdef _MSC_VER
    #define TRIO_WS_RESTRICT __restrict
    #else
    #define TRIO_WS_RESTRICT restrict
    #endif

    TRIO_WS_WIDER
    static void trio_ws_xor(
        char *TRIO_WS_RESTRICT target, const char *TRIO_WS_RESTRICT source,
        Py_ssize_t size, uint32_t key)
    {
        TRIO_WS_XOR(target, source)
    }

    TRIO_WS_WIDER
    static void trio_ws_xor_in_place(char *data, Py_ssize_t size, uint32_t key)
    {
        TRIO_WS_XOR(data, data)
    }
    """
    void xor "trio_ws_xor"(
        char* target, const char* source, Py_ssize_t size, uint32_t key
    ) noexcept nogil
    void xor_in_place "trio_ws_xor_in_place"(
        char* data, Py_ssize_t size, uint32_t key
    ) noexcept nogil


cdef inline uint32_t key_at(bytes data, Py_ssize_t position) except? 0:
    if position < 0 or len(data) - position < 4:
        raise IndexError("masking key beyond the end")
    cdef const unsigned char* key
    key = <const unsigned char*>PyBytes_AS_STRING(data) + position
    return key[0] | key[1] << 8 | key[2] << 16 | <uint32_t>key[3] << 24


cdef inline bytes masked(
    bytes data, Py_ssize_t start, Py_ssize_t stop, uint32_t key
):
    if not 0 <= start <= stop <= len(data):
        raise IndexError("payload beyond the end")
    cdef bytes result
    if key == 0:
        if start == 0 and stop == len(data):
            return data
        return PyBytes_FromStringAndSize(PyBytes_AS_STRING(data) + start, stop - start)
    result = PyBytes_FromStringAndSize(NULL, stop - start)
    xor(PyBytes_AS_STRING(result), PyBytes_AS_STRING(data) + start, stop - start, key)
    return result


cdef inline bytes blank(Py_ssize_t size):
    return PyBytes_FromStringAndSize(NULL, size)


cdef inline int copy(
    target, Py_ssize_t at, bytes data, Py_ssize_t start, Py_ssize_t stop, uint32_t key
) except -1:
    if not 0 <= start <= stop <= len(data):
        raise IndexError("payload beyond the end")
    return put(target, at, PyBytes_AS_STRING(data) + start, stop - start, key)


cdef inline int mask(
    target, Py_ssize_t start, Py_ssize_t stop, uint32_t key
) except -1:
    return put(target, start, NULL, stop - start, key) if key else 0


cdef inline int put(
    target, Py_ssize_t at, const char* source, Py_ssize_t size, uint32_t key
) except -1:
    # Without a source the target is masked where it is.
    cdef Py_buffer view
    PyObject_GetBuffer(target, &view, PyBUF_WRITABLE)
    try:
        if at < 0 or size < 0 or at + size > view.len:
            raise IndexError("payload beyond the space for it")
        start = <char*>view.buf + at
        if source == NULL:
            xor_in_place(start, size, key)
        elif key:
            xor(start, source, size, key)
        else:
            memcpy(start, source, size)
    finally:
        PyBuffer_Release(&view)
    return 0


cdef inline bytes joined(uint32_t head, int count, bytes payload, long long key):
    if not 0 <= count <= 4:
        raise IndexError("head of more than four bytes")
    cdef Py_ssize_t start = count if key < 0 else count + 4
    cdef Py_ssize_t size = len(payload)
    cdef bytes result = PyBytes_FromStringAndSize(NULL, start + size)
    cdef char* target = PyBytes_AS_STRING(result)
    cdef int i
    for i in range(count):
        target[i] = <char>(head >> 8 * (count - 1 - i))
    if key < 0:
        memcpy(target + start, PyBytes_AS_STRING(payload), size)
    else:
        for i in range(4):
            target[count + i] = <char>(key >> 8 * i)
        xor(target + start, PyBytes_AS_STRING(payload), size, <uint32_t>key)
    return result
