cdef class Counter:
    cdef public int limit
    cdef public int calls
    cdef public double seconds
    cdef public double until

    cpdef bint is_due(self) except -1
    cpdef waited(self)
