/* The outlet of a socket, and writing the same to many, in C.

   The law of this file: it does what pure.py says, and nothing else. A write is one system call and
   gives up no lock for it, since the socket does not block. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#ifndef MSG_NOSIGNAL /* macOS: Python ignores SIGPIPE */
#define MSG_NOSIGNAL 0
#endif

enum { FEW = 1024 }; /* bytes */

typedef struct {
    PyObject_HEAD
    int fd;         /* -1 once closed */
    PyObject *held; /* bytes; NULL if none */
} Outlet;

static PyTypeObject OutletType;

static Py_ssize_t
send_out(int fd, char *data, Py_ssize_t size)
{
    Py_ssize_t taken;
    do {
        taken = send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (taken < 0 && errno == EINTR);
    return taken;
}

static Py_ssize_t
send_both(int fd, char *first, Py_ssize_t first_size, char *then, Py_ssize_t then_size)
{
    struct iovec parts[2] = {{first, first_size}, {then, then_size}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    Py_ssize_t taken;
    do {
        taken = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (taken < 0 && errno == EINTR);
    return taken;
}

/* Writes behind what is held. Returns how many bytes of `data` were taken; -1 and errno if none. */
static Py_ssize_t
write_behind_held(Outlet *self, char *data, Py_ssize_t size)
{
    Py_ssize_t held = PyBytes_GET_SIZE(self->held);
    char few[FEW];
    Py_ssize_t behind;
    if (held + size <= FEW) {
        /* What nearly all are; one piece goes quicker than two. */
        memcpy(few, PyBytes_AS_STRING(self->held), held);
        memcpy(few + held, data, size);
        behind = send_out(self->fd, few, held + size);
    }
    else {
        behind = send_both(self->fd, PyBytes_AS_STRING(self->held), held, data, size);
    }
    if (behind < 0)
        return -1;
    behind -= held;
    if (behind >= 0) {
        Py_CLEAR(self->held);
        return behind;
    }
    PyObject *rest = PyBytes_FromStringAndSize(PyBytes_AS_STRING(self->held) + held + behind, -behind);
    if (rest == NULL) {
        PyErr_Clear();
        errno = ENOMEM;
        return -1;
    }
    Py_SETREF(self->held, rest);
    return 0;
}

static Py_ssize_t
write_out(Outlet *self, PyObject *bytes)
{
    char *data = PyBytes_AS_STRING(bytes);
    Py_ssize_t size = PyBytes_GET_SIZE(bytes);
    if (self->fd < 0) {
        Py_CLEAR(self->held);
        return size;
    }
    if (self->held != NULL)
        return write_behind_held(self, data, size);
    return send_out(self->fd, data, size);
}

static PyObject *
Outlet_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *sock;
    static char *names[] = {"sock", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Outlet", names, &sock))
        return NULL;
    int fd = PyObject_AsFileDescriptor(sock);
    if (fd < 0)
        return NULL;
    Outlet *self = (Outlet *)type->tp_alloc(type, 0);
    if (self != NULL)
        self->fd = fd;
    return (PyObject *)self;
}

static void
Outlet_dealloc(Outlet *self)
{
    Py_XDECREF(self->held);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static int
is_bytes(PyObject *data)
{
    if (PyBytes_Check(data))
        return 1;
    PyErr_Format(PyExc_TypeError, "bytes, not %.100s", Py_TYPE(data)->tp_name);
    return 0;
}

static PyObject *
Outlet_write(Outlet *self, PyObject *data)
{
    if (!is_bytes(data))
        return NULL;
    Py_ssize_t taken = write_out(self, data);
    return taken < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromSsize_t(taken);
}

static PyObject *
Outlet_hold(Outlet *self, PyObject *data)
{
    if (!is_bytes(data))
        return NULL;
    if (self->held == NULL) {
        self->held = Py_NewRef(data);
    }
    else {
        PyBytes_Concat(&self->held, data);
        if (self->held == NULL)
            return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Outlet_get_held(Outlet *self, void *Py_UNUSED(closure))
{
    return self->held != NULL ? Py_NewRef(self->held) : PyBytes_FromStringAndSize(NULL, 0);
}

static PyObject *
Outlet_release(Outlet *self, PyObject *Py_UNUSED(none))
{
    PyObject *held = Outlet_get_held(self, NULL);
    Py_CLEAR(self->held);
    return held;
}

static PyObject *
Outlet_close(Outlet *self, PyObject *Py_UNUSED(none))
{
    self->fd = -1;
    Py_CLEAR(self->held);
    Py_RETURN_NONE;
}

static PyMethodDef Outlet_methods[] = {
    {"write", (PyCFunction)Outlet_write, METH_O, NULL},
    {"hold", (PyCFunction)Outlet_hold, METH_O, NULL},
    {"release", (PyCFunction)Outlet_release, METH_NOARGS, NULL},
    {"close", (PyCFunction)Outlet_close, METH_NOARGS, NULL},
    {NULL},
};

static PyGetSetDef Outlet_members[] = {
    {"held", (getter)Outlet_get_held, NULL, NULL, NULL},
    {NULL},
};

static PyTypeObject OutletType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "streamcast.outlet.native.Outlet",
    .tp_basicsize = sizeof(Outlet),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = Outlet_new,
    .tp_dealloc = (destructor)Outlet_dealloc,
    .tp_methods = Outlet_methods,
    .tp_getset = Outlet_members,
};

/* Takes the exception that is set, without its traceback; NULL if none but a caller is to have it. */
static PyObject *
take_fault(void)
{
    PyObject *type, *fault, *traceback;
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return NULL;
    PyErr_Fetch(&type, &fault, &traceback);
    PyErr_NormalizeException(&type, &fault, &traceback);
    PyException_SetTraceback(fault, Py_None);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return fault;
}

/* Writes to one of any kind. Returns what is to be said of it: NULL if it took all, or raised what
   is for the caller. */
static PyObject *
write_to(PyObject *outlet, PyObject *data)
{
    PyObject *taken;
    if (Py_IS_TYPE(outlet, &OutletType)) {
        Py_ssize_t count = write_out((Outlet *)outlet, data);
        if (count == PyBytes_GET_SIZE(data))
            return NULL;
        if (count >= 0)
            return PyLong_FromSsize_t(count);
        taken = PyErr_SetFromErrno(PyExc_OSError);
    }
    else {
        Py_INCREF(outlet);
        taken = PyObject_CallMethod(outlet, "write", "O", data);
        Py_DECREF(outlet);
    }
    if (taken == NULL)
        return take_fault();
    if (PyLong_Check(taken) && PyLong_AsSsize_t(taken) == PyBytes_GET_SIZE(data))
        Py_CLEAR(taken);
    /* A number that is too large is no error, but not all either. */
    PyErr_Clear();
    return taken;
}

/* Adds an index, and what is to be said of it, to a list, which is made where there is none. */
static int
note(PyObject **failed, Py_ssize_t index, PyObject *how)
{
    PyObject *entry = Py_BuildValue("nN", index, how);
    if (entry != NULL && *failed == NULL)
        *failed = PyList_New(0);
    int added = entry == NULL || *failed == NULL ? -1 : PyList_Append(*failed, entry);
    Py_XDECREF(entry);
    return added;
}

static PyObject *
write_to_each(PyObject *outlets, PyObject *data, Py_ssize_t start, Py_ssize_t stop)
{
    PyObject *failed = NULL;
    for (Py_ssize_t index = start; index < stop && index < PyList_GET_SIZE(outlets); index++) {
        PyObject *how = write_to(PyList_GET_ITEM(outlets, index), data);
        if (how != NULL && note(&failed, index, how) < 0)
            break;
        if (PyErr_Occurred())
            break;
    }
    if (PyErr_Occurred())
        Py_CLEAR(failed);
    else if (failed == NULL)
        return PyTuple_New(0);
    return failed;
}

static PyObject *
write_each(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (count != 4 || !PyList_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "write_each takes a list, bytes, a start and a stop");
        return NULL;
    }
    if (!is_bytes(args[1]))
        return NULL;
    Py_ssize_t start = PyLong_AsSsize_t(args[2]);
    if (start == -1 && PyErr_Occurred())
        return NULL;
    Py_ssize_t stop = PyLong_AsSsize_t(args[3]);
    if (stop == -1 && PyErr_Occurred())
        return NULL;
    if (start < 0) {
        PyErr_SetString(PyExc_IndexError, "there is no seat before the first");
        return NULL;
    }
    return write_to_each(args[0], args[1], start, stop);
}

static PyMethodDef functions[] = {
    {"write_each", (PyCFunction)(void (*)(void))write_each, METH_FASTCALL, NULL},
    {NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "streamcast.outlet.native",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC
PyInit_native(void)
{
    PyObject *made = PyModule_Create(&module);
    if (made != NULL && PyModule_AddType(made, &OutletType) < 0)
        Py_CLEAR(made);
    return made;
}
