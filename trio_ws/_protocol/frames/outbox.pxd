cimport cython
from libc.stdint cimport uint32_t

from . cimport masking

cdef Py_ssize_t PIECE_SIZE
cdef object _NOTHING, deque

cpdef Py_ssize_t frame_size(object frame) except -1

cdef class Outbox:
    cdef list _under_way
    cdef object _data_frame
    cdef tuple _rest
    cdef object _control
    cdef object _pongs
    cdef object _data
    cdef public Py_ssize_t batch_limit
    cdef public long long size
    cdef public long long bytes_written

    cpdef push(self, frame)
    cpdef push_control(self, bytes frame)
    cpdef put_pong(self, bytes frame)
    cpdef bint holds_data(self, close_frame)
    cpdef discard(self)
    cpdef drop(self)
    cpdef drop_data(self)
    @cython.locals(buffers=list, total=Py_ssize_t, size=Py_ssize_t)
    cpdef list next_buffers(self, Py_ssize_t limit)
    @cython.locals(parts=list)
    cpdef consume(self, Py_ssize_t count)
    @cython.locals(
        payload=bytes, start=Py_ssize_t, stop=Py_ssize_t, key=uint32_t
    )
    cdef _mask_piece(self)
    cdef tuple _next(self)
