cimport cython
from libc.stdint cimport uint32_t

from . cimport masking

cdef int PIECE_SIZE, SPLIT_SIZE
cdef list _keys

cdef uint32_t _new_key() except? 0

@cython.locals(
    data=bytes,
    size=Py_ssize_t,
    first="unsigned int",
    second="unsigned int",
    head="unsigned int",
    key="long long",
)
cpdef encode(int opcode, payload, bint fin, bint masked, int reserved=*)
