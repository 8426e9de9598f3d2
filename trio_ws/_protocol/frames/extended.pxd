from .encoder cimport encode

cdef int CONT

cpdef encode_extended(
    int opcode, payload, bint fin, bint masked, extensions, bint compress, deflate
)
cdef _through(frame, extensions, bint compress, bint masked)
cpdef bytes encode_control(int opcode, payload, extensions, bint masked)
cpdef forget(extensions)
