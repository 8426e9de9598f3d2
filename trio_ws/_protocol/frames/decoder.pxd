cimport cython
from libc.stdint cimport uint32_t

from . cimport masking
from .header cimport check_header, extended_length
from .partial cimport PartialMessage, decoded

cdef int CLOSE, CONT, MESSAGE_OVERHEAD, SHORT_FRAGMENT, TEXT, TRACED, _LARGE
cdef long long MAX_LENGTH

cdef class Decoder:
    cdef Py_ssize_t _at
    cdef object _extensions
    cdef bint _fin
    cdef uint32_t _key
    cdef bytes _left
    cdef long long _length
    cdef long long _limit
    cdef bint _masked
    cdef public int max_short_fragments  # which takes no memory here
    cdef object _max_size
    cdef PartialMessage _message
    cdef long long _missing
    cdef int _opcode
    cdef object _raw
    cdef int _reserved
    cdef bytes _seen
    cdef object _trace
    cdef bint _transform
    cdef public object deflate
    cdef public long long frame_limit
    cdef public long long room
    cdef public bint stopped

    cpdef extend(self, extensions)

    cpdef list feed(self, data)

    cpdef list go_on(self)

    cdef list _feed(self, bytes data, Py_ssize_t position)

    @cython.locals(
        masked=bint,
        end=Py_ssize_t,
        first=int,
        second=int,
        start=Py_ssize_t,
        length="long long",
        transform=bint,
        whole=bint,
        frames="long long",
    )
    cdef _parse(self, bytes data, Py_ssize_t position, list items)

    @cython.locals(payload=bytes)
    cdef _add_deflated(
        self, bytes data, Py_ssize_t start, Py_ssize_t stop, int first, list items
    )

    cdef bint _is_for_extensions(self, int first) except -1

    @cython.locals(message=PartialMessage, before="long long")
    cdef _check_data(self, int first, long long length, bint transform)

    cdef _check_size(self, before, length, bint transform)

    @cython.locals(message=PartialMessage)
    cdef _begin(self, int first, long long length, bint transform)

    cpdef space(self)

    cpdef list filled(self, Py_ssize_t count)

    @cython.locals(message=PartialMessage)
    cdef _add_filled(self, Py_ssize_t count, list items)

    @cython.locals(key="unsigned long long", shift="unsigned int")
    cdef void _progress(self, Py_ssize_t size)

    cdef _trace_payload(self, bytes chunk)

    @cython.locals(
        message=PartialMessage,
        stop=Py_ssize_t,
        count=Py_ssize_t,
        chunk=bytes,
        ends=bint,
    )
    cdef Py_ssize_t _add_payload(
        self, bytes data, Py_ssize_t start, list items
    ) except -1

    @cython.locals(size="long long")
    cdef bytes _transformed(self, int opcode, bytes payload, bint fin, int reserved)

    @cython.locals(message=PartialMessage)
    cdef _complete(self, list items)

    @cython.locals(key=uint32_t, stop=Py_ssize_t, payload=bytes, opcode=int)
    cdef Py_ssize_t _add_control(
        self,
        bytes data,
        Py_ssize_t start,
        int first,
        Py_ssize_t length,
        list items,
    ) except -1

    cpdef take_partial(self)

    cpdef discard_partial(self)

    cpdef str where(self)
