cdef int MAX_CONTROL_PAYLOAD

cpdef long long extended_length(bytes data, Py_ssize_t start, Py_ssize_t stop) except -1

cpdef check_header(int first, int second, bint masked, bint extended)
