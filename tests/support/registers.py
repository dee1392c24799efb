"""The control register of the processor's vector unit, read and set by a few bytes of machine code."""

from __future__ import annotations

import ctypes
import functools
import mmap
import platform

AVAILABLE = platform.machine() in ("x86_64", "AMD64") and hasattr(mmap, "PROT_EXEC")
FLAGS = 0x3F  # what has happened, such as a rounding; everything else is what shall happen

# stmxcsr [rdi]; ret and ldmxcsr [rdi]; ret
READ, WRITE = b"\x0f\xae\x1f\xc3", b"\x0f\xae\x17\xc3"


@functools.cache
def _function(code):
    memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    function = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_uint32))(address)
    return function, memory


def control_register(value=None):
    """MXCSR without its flags; set to `value` where that is given."""
    if value is not None:
        _function(WRITE)[0](ctypes.c_uint32(value))
    word = ctypes.c_uint32()
    _function(READ)[0](word)
    return word.value & ~FLAGS
