# get_ident() for compiled code, which calls this instead.

cdef extern from "Python.h":
    unsigned long get_ident "PyThread_get_thread_ident"() noexcept nogil
