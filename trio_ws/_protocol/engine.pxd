cimport cython

from .frames cimport text
from .frames.decoder cimport Decoder
from .frames.encoder cimport encode
from .frames.extended cimport encode_control, encode_extended, forget
from .frames.outbox cimport Outbox
from .frames.shared cimport encode_shared

cdef int BINARY, CLOSE, PING, PONG, TEXT, MAX_HEADER
cdef object DEAF, FAILED, FINAL, OPEN, TABLE, WideText, _NOTHING, deque

cdef class Engine:
    cdef readonly bint client
    cdef object _close_frame
    cdef readonly long long max_waiting
    cdef object _trace_sent
    cdef public object cause
    cdef public Decoder decoder
    cdef readonly object extensions
    cdef public bint lost_data
    cdef public object bug
    cdef public object messages
    cdef public long long messages_received
    cdef public long long messages_sent
    cdef public object on_pong
    cdef public Outbox outbox
    cdef public object phase
    cdef public long long queued
    cdef public object rcvd
    cdef public object rcvd_then_sent
    cdef public object sent
    cdef public object violation

    cdef _step(self, event)

    cpdef bint receive(self, data) except -1

    cpdef space(self)

    cpdef bint filled(self, Py_ssize_t count) except -1

    @cython.locals(size="long long")
    cdef bint _take_in(self, list items) except -1

    cpdef bint go_on(self) except -1

    cdef bint _receive_others(self, list items) except -1

    cpdef receive_eof(self)

    cdef _receive_control(self, tuple item)

    cdef _violate(self, exc)

    cpdef act_on_violation(self)

    cpdef pop(self)

    cpdef peek(self)

    cpdef discard_messages(self)

    cpdef data_frame(self, int opcode, payload, bint fin, bint compress=*)

    cdef _sends(self, int opcode, payload, bint fin)

    @cython.locals(opcode=int, payload=bytes)
    cpdef bint queue_behind(self, message, bint compress) except -1

    cpdef shared_frame(self, int opcode, payload, dict cache)

    cpdef forget_context(self)

    cpdef bytes send_ping(self, payload)

    cpdef send_pong(self, payload)

    cpdef close(self, code, reason)

    cpdef fail(self, code, reason, cause)

    cpdef lose(self, cause)

    cdef _receive_close(self, payload)

    cdef _note_lost(self, cause)

    cdef _drop(self, cause)

    cdef _send_close(self, bytes frame, close)

    cdef bytes _control(self, int opcode, payload, bint plain=*)
