from . cimport threads

cdef class CallCounter:
    cdef readonly unsigned long thread
    cdef public long long limit
    cdef public long long calls
    cdef public double seconds
    cdef public double until

    cpdef bint spend(self) except -1
    cpdef check_thread(self)
    cpdef renew(self)
