# memory_size() for compiled code, which calls this instead.

from cpython.bytes cimport PyBytes_Check, PyBytes_GET_SIZE

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object)
    int PyUnicode_KIND(object)
    Py_ssize_t PyUnicode_GET_LENGTH(object)


cdef inline Py_ssize_t memory_size(object message) except -1:
    if PyBytes_Check(message):
        return PyBytes_GET_SIZE(message)
    if not isinstance(message, str):
        raise TypeError("message: expected str or bytes")
    if PyUnicode_IS_ASCII(message):
        return PyUnicode_GET_LENGTH(message)
    return PyUnicode_GET_LENGTH(message) * PyUnicode_KIND(message)
