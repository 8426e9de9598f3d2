cdef class CallCounter:
    cdef public long long limit
    cdef public long long calls
    cdef public double seconds
    cdef public double until

    cpdef bint spend(self) except -1
    cpdef renew(self)
