cimport cython
from libc.stdint cimport uint32_t

from . cimport masking

cdef Py_ssize_t _LARGEST_ROOM, _AT_ONCE, _JOINED, _SMALL_PART

@cython.locals(message=str)
cpdef decoded(bytes payload)

cdef class PartialMessage:
    cdef object _buffer
    cdef Py_ssize_t _filled
    cdef list _parts
    cdef bytes _pending
    cdef object _room
    cdef object _small_parts
    cdef readonly bint discarded
    cdef readonly bint is_text
    cdef public int short_fragments
    cdef readonly long long size
    cdef readonly long long waiting

    @cython.locals(before=Py_ssize_t)
    cdef add(self, bytes piece, bint last)

    cdef _join_small_parts(self)

    cdef make_room(self, long long size)

    cdef _leave_room(self)

    cdef room(self)

    cdef unmask(self, Py_ssize_t count, uint32_t key)

    @cython.locals(size=Py_ssize_t)
    cdef Py_ssize_t copy(
        self, bytes data, Py_ssize_t start, Py_ssize_t stop, uint32_t key
    ) except -1

    cdef bytes peek(self, Py_ssize_t count)

    cdef filled(self, Py_ssize_t count)

    @cython.locals(parts=list)
    cdef take(self)

    cdef finish(self)

    cdef discard(self)
