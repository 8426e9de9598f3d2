cdef class Counter:
    cdef public long long limit
    cdef public long long calls
    cdef public double seconds
    cdef public double until

    cpdef bint is_due(self) except -1
    cpdef waited(self)
