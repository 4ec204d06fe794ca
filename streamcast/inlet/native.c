/* A client's usual frame, in C.

   The law of this file: it does what pure.py says, and nothing else. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

enum { HEAD = 0x81, MASKED = 0x80, IN_TWO_BYTES = 126, SHORTEST = 6 };

/* Returns where the payload begins, after which `length` is what it has; 0 for any other frame. */
static Py_ssize_t
payload_of(const uint8_t *frame, Py_ssize_t size, Py_ssize_t *length)
{
    if (size < SHORTEST || frame[0] != HEAD)
        return 0;
    *length = frame[1] ^ MASKED;
    if (*length < IN_TWO_BYTES)
        return SHORTEST;
    if (*length > IN_TWO_BYTES || size < SHORTEST + 2)
        return 0;
    *length = frame[2] << 8 | frame[3];
    return SHORTEST + 2;
}

/* Returns whether all of it is ASCII. */
static int
unmask(uint8_t *to, const uint8_t *from, Py_ssize_t length, const uint8_t *mask)
{
    uint64_t word, mask_of_word, seen = 0;
    uint8_t last = 0;
    Py_ssize_t at = 0;
    memcpy(&mask_of_word, mask, 4);
    memcpy((char *)&mask_of_word + 4, mask, 4);
    for (; length - at >= 8; at += 8) {
        memcpy(&word, from + at, 8);
        word ^= mask_of_word;
        seen |= word;
        memcpy(to + at, &word, 8);
    }
    for (; at < length; at++) {
        to[at] = from[at] ^ mask[at % 4];
        last |= to[at];
    }
    return !(seen & UINT64_C(0x8080808080808080)) && !(last & 0x80);
}

static PyObject *
usual_text_in(const uint8_t *frame, Py_ssize_t size, Py_ssize_t limit)
{
    Py_ssize_t length;
    Py_ssize_t start = payload_of(frame, size, &length);
    if (start == 0 || length > limit || start + length != size)
        Py_RETURN_NONE;
    PyObject *payload = PyBytes_FromStringAndSize(NULL, length);
    if (payload == NULL)
        return NULL;
    uint8_t *to = (uint8_t *)PyBytes_AS_STRING(payload);
    if (unmask(to, frame + start, length, frame + start - 4))
        return payload;
    Py_DECREF(payload);
    Py_RETURN_NONE;
}

static PyObject *
usual_text(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "usual_text takes a buffer, a size and a limit");
        return NULL;
    }
    Py_ssize_t size = PyLong_AsSsize_t(args[1]);
    if (size == -1 && PyErr_Occurred())
        return NULL;
    Py_ssize_t limit = PyLong_AsSsize_t(args[2]);
    if (limit == -1 && PyErr_Occurred())
        return NULL;
    Py_buffer buffer;
    if (PyObject_GetBuffer(args[0], &buffer, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *payload = NULL;
    if (size > buffer.len)
        PyErr_SetString(PyExc_ValueError, "the buffer has not so many bytes");
    else
        payload = usual_text_in(buffer.buf, size, limit);
    PyBuffer_Release(&buffer);
    return payload;
}

static PyMethodDef functions[] = {
    {"usual_text", (PyCFunction)(void (*)(void))usual_text, METH_FASTCALL, NULL},
    {NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "streamcast.inlet.native",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC
PyInit_native(void)
{
    return PyModule_Create(&module);
}
