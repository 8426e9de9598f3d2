from .encoder cimport encode

cpdef encode_shared(int opcode, bytes payload, deflate, dict cache)
